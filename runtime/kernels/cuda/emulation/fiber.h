// Threads of a block as stacks that take turns on one host thread. Threads: one.
#pragma once

#include <csetjmp>
#include <functional>
#include <memory>
#include <vector>

namespace lepton::kernels::cuda::emulation {

class Fibers {
 public:
  static Fibers& Get();
  // Fiber `index` will run `body` from its beginning.
  void Start(unsigned index, const std::function<void()>* body);
  // Until it yields or returns; true when it has returned.
  bool Resume(unsigned index);
  // Called on a fiber: back to who resumed it.
  static void Yield();

 private:
  struct Fiber;
  static void Enter();
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* running_ = nullptr;
  std::jmp_buf resumer_;
};

}  // namespace lepton::kernels::cuda::emulation
