// Attention by a library: cuDNN on a GPU that has it, our own device code in the emulation.
// Threads: one caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/kernels/cuda/device/attention.h"

namespace lepton::kernels::cuda {

enum class AttentionPass { kForward, kGradient };

class LibraryAttention {
 public:
  virtual ~LibraryAttention() = default;
  virtual size_t workspace_bytes() const = 0;
  // Of the extents that it was made for.
  virtual void Run(const AttentionArguments& arguments, void* workspace) = 0;
};

class Attentions {
 public:
  virtual ~Attentions() = default;
  // For the extents of `arguments`, whose memory does not count; of bf16, without a bias. Null when
  // the library has no way to compute it, none that gives the same bits each time, or when it is
  // too little work.
  virtual std::unique_ptr<LibraryAttention> Make(const AttentionArguments& arguments,
                                                 AttentionPass pass) = 0;
  // Multiplications of a pass from which on the library is asked: it compiles its code for each
  // shape, which takes seconds.
  void set_least_work(int64_t multiplications) { least_work_ = multiplications; }
  int64_t least_work() const { return least_work_; }

 private:
  int64_t least_work_ = int64_t{1} << 32;
};

// What the library can do at all: no bias, no window, square if causal.
inline bool FitsLibrary(const AttentionArguments& a) {
  constexpr int64_t kMostSize = 128, kSizeStep = 8;
  return a.bf16 && a.bias == nullptr && a.window == 0 && (!a.causal || a.queries == a.keys) &&
         a.size <= kMostSize && a.size % kSizeStep == 0 && a.batch > 0 && a.queries > 0 &&
         a.keys > 0;
}

}  // namespace lepton::kernels::cuda
