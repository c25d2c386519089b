// What attentions.h promises, by the device code that computes attention without a library.
#include "runtime/kernels/cuda/emulation/emulated_device.h"

namespace lepton::kernels::cuda::emulation {
namespace {

class EmulatedAttention final : public LibraryAttention {
 public:
  EmulatedAttention(AttentionPass pass, size_t dots_bytes, Queue& queue)
      : pass_(pass), dots_bytes_(dots_bytes), queue_(queue) {}
  size_t workspace_bytes() const override { return dots_bytes_; }
  void Run(const AttentionArguments& arguments, void* workspace) override {
    const Stream stream{&queue_};
    if (pass_ == AttentionPass::kForward) return RunAttention(arguments, stream);
    AttentionArguments with_dots = arguments;
    with_dots.dot = static_cast<float*>(workspace);
    RunAttentionGrad(with_dots, stream);
  }

 private:
  const AttentionPass pass_;
  const size_t dots_bytes_;
  Queue& queue_;
};

}  // namespace

std::unique_ptr<LibraryAttention> EmulatedAttentions::Make(const AttentionArguments& a,
                                                           AttentionPass pass) {
  if (!FitsLibrary(a) || 2 * a.batch * a.heads * a.queries * a.keys * a.size < least_work()) {
    return nullptr;
  }
  const size_t dots = a.batch * a.heads * a.queries * sizeof(float);
  return std::make_unique<EmulatedAttention>(pass, pass == AttentionPass::kForward ? 0 : dots,
                                             queue_);
}

}  // namespace lepton::kernels::cuda::emulation
