// longjmp's checks take another stack for a mistake.
#undef _FORTIFY_SOURCE
#include "runtime/kernels/cuda/emulation/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include "runtime/base/logging.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define LEPTON_LEAVE_STACK(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define LEPTON_ARRIVE(save, bottom, size) __sanitizer_finish_switch_fiber(save, bottom, size)
#else
#define LEPTON_LEAVE_STACK(save, bottom, size) static_cast<void>(0)
#define LEPTON_ARRIVE(save, bottom, size) static_cast<void>(0)
#endif

namespace lepton::kernels::cuda::emulation {
namespace {

constexpr size_t kStackBytes = 128 << 10;

[[maybe_unused]] void* resumer_fake = nullptr;
[[maybe_unused]] const void* resumer_stack = nullptr;
[[maybe_unused]] size_t resumer_size = 0;

}  // namespace

// A context is made once by makecontext; from then on setjmp and longjmp switch, which, unlike
// swapcontext, make no system calls.
struct Fibers::Fiber {
  Fiber() {
    stack =
        ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED) << "no memory for an emulated thread";
  }
  ~Fiber() { ::munmap(stack, kStackBytes); }

  void* stack;
  ucontext_t context, origin;
  bool entered = false;
  std::jmp_buf state;
  [[maybe_unused]] void* fake = nullptr;
  const std::function<void()>* body = nullptr;
  bool done = false;
};

Fibers& Fibers::Get() {
  static Fibers fibers;
  return fibers;
}

void Fibers::Start(unsigned index, const std::function<void()>* body) {
  while (fibers_.size() <= index) fibers_.push_back(std::make_unique<Fiber>());
  fibers_[index]->body = body;
  fibers_[index]->done = false;
}

void Fibers::Enter() {
  LEPTON_ARRIVE(nullptr, &resumer_stack, &resumer_size);
  Fiber& self = *Get().running_;
  for (;;) {
    (*self.body)();
    self.done = true;
    Yield();
  }
}

bool Fibers::Resume(unsigned index) {
  Fiber& fiber = *fibers_[index];
  running_ = &fiber;
  LEPTON_LEAVE_STACK(&resumer_fake, fiber.stack, kStackBytes);
  if (_setjmp(resumer_) == 0) {
    if (fiber.entered) _longjmp(fiber.state, 1);
    fiber.entered = true;
    ::getcontext(&fiber.context);
    fiber.context.uc_stack = {.ss_sp = fiber.stack, .ss_flags = 0, .ss_size = kStackBytes};
    fiber.context.uc_link = nullptr;
    ::makecontext(&fiber.context, &Fibers::Enter, 0);
    ::swapcontext(&fiber.origin, &fiber.context);
  }
  LEPTON_ARRIVE(resumer_fake, nullptr, nullptr);
  return Get().running_->done;
}

void Fibers::Yield() {
  Fibers& fibers = Get();
  Fiber& self = *fibers.running_;
  LEPTON_LEAVE_STACK(&self.fake, resumer_stack, resumer_size);
  if (_setjmp(self.state) == 0) _longjmp(fibers.resumer_, 1);
  LEPTON_ARRIVE(self.fake, &resumer_stack, &resumer_size);
}

}  // namespace lepton::kernels::cuda::emulation
