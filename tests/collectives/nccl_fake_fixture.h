// The nccl back-end without GPUs: over a stand-in for the CUDA run time, linked in its place, and
// one for NCCL, loaded in its (fake_nccl.cc). Ranks are threads.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "collectives/communicator.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/fake_nccl.h"
#include "tests/collectives/gang.h"
#include "tests/runtime/cuda/fake_cudart.h"

namespace lepton::collectives {

class NcclFake : public ::testing::Test {
 protected:
  void SetUp() override {
    Cuda().devices = 4;
    Cuda().elsewhere = Cuda().not_ready = Cuda().broken = 0;
    ASSERT_TRUE(FindBackend("nccl").value()->Available().ok());
    Nccl().hang = Nccl().flushes = false;
    Nccl().shrink_fails = Nccl().shrink_hangs = false;
    // What ends on threads of its own.
    const MonotonicTime begun = RealClock().Now();
    while (Nccl().alive > 0 && RealClock().Now() - begun < std::chrono::seconds(10)) {
      std::this_thread::yield();
    }
    ASSERT_EQ(Nccl().alive, 0);
    Nccl().aborts = Nccl().inits = Nccl().shrinks = 0;
    Nccl().version = 22809;
  }
  static cuda_test::FakeCuda& Cuda() { return cuda_test::TheFakeCuda(); }
  static FakeNccl& Nccl() {
    static void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
    return *reinterpret_cast<FakeNccl* (*)()>(dlsym(library, "TheFakeNccl"))();
  }
  static std::vector<std::string> Run(int size, const RankBody& body,
                                      Duration timeout = std::chrono::seconds(30)) {
    GangOptions options{
        .backend = FindBackend("nccl").value(), .size = size, .ranks_as = RanksAs::kThreads};
    options.communicator.timeout = timeout;
    return RunGang(options, body);
  }
};

inline constexpr char kToken[] = "0123456789abcdef";

inline double SecondsSince(MonotonicTime then) {
  return std::chrono::duration<double>(RealClock().Now() - then).count();
}

inline std::string SumOfRanks(Communicator& communicator) {
  float sum = static_cast<float>(communicator.rank() + 1);
  const Status status = communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32, ReduceOp::kSum);
  if (!status.ok()) return status.ToString();
  const int size = communicator.size();
  return sum == static_cast<float>(size * (size + 1) / 2) ? "" : "sum " + std::to_string(sum);
}

}  // namespace lepton::collectives
