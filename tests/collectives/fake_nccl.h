// What a test tells the stand-in for NCCL (fake_nccl.cc), and learns from it. The program does not
// link it: it is found by name in the library that was loaded.
#pragma once

#include <atomic>

namespace lepton::collectives {

struct FakeNccl {
  std::atomic<bool> hang{false};     // ncclCommAbort does not return
  std::atomic<bool> flushes{false};  // ncclCommFinalize is never done
  std::atomic<int> alive{0};         // communicators that have not ended
  std::atomic<int> aborts{0};        // that have returned
  std::atomic<int> inits{0};         // communicators made by an id
  std::atomic<int> version{22809};
  std::atomic<int> shrinks{0};            // communicators made from others
  std::atomic<bool> shrink_fails{false};  // the next one, of one rank
  std::atomic<bool> shrink_hangs{false};  // ncclCommShrink does not return
};

}  // namespace lepton::collectives

extern "C" lepton::collectives::FakeNccl* TheFakeNccl();
