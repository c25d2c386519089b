// The nccl back-end without GPUs (nccl_fake_fixture.h). What the real libraries do is for
// nccl_test.cc to show, where there are GPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "runtime/base/progress.h"
#include "tests/collectives/nccl_fake_fixture.h"

extern "C" {  // of the CUDA run time
int cudaGetDevice(int* device);
int cudaSetDevice(int device);
}

namespace lepton::collectives {
namespace {

using std::chrono::milliseconds;
using ::testing::Each;
using ::testing::HasSubstr;

TEST_F(NcclFake, EveryOperationGivesTheExactBits) {
  for (const int size : {1, 2, 3, 4}) {
    EXPECT_THAT(Run(size, RunConformance), Each("")) << size << " ranks";
  }
  EXPECT_EQ(Cuda().elsewhere, 0);
}

// The thread that calls computes on a device of its own.
TEST_F(NcclFake, ACallersDeviceIsItsOwnAfterwards) {
  const auto body = [](Communicator& communicator) -> std::string {
    int device = -1;
    cudaGetDevice(&device);
    if (device != 0) return "after the meeting: " + std::to_string(device);
    const int mine = 3 - communicator.rank();
    cudaSetDevice(mine);
    if (std::string wrong = SumOfRanks(communicator); !wrong.empty()) return wrong;
    cudaGetDevice(&device);
    return device == mine ? "" : "after an operation: " + std::to_string(device);
  };
  EXPECT_THAT(Run(3, body), Each(""));
  EXPECT_EQ(Cuda().elsewhere, 0);
}

// So that nobody takes a group for dead whose operation takes long.
TEST_F(NcclFake, WhatArrivesCountsAsMoves) {
  const uint64_t before = progress::Now().moves;
  EXPECT_THAT(Run(2, SumOfRanks), Each(""));
  const uint64_t one = progress::Now().moves - before;
  EXPECT_GE(one, 2u);
}

TEST_F(NcclFake, ASlowOperationIsWaitedFor) {
  Cuda().not_ready = 200;
  EXPECT_THAT(Run(2, SumOfRanks), Each(""));
}

// It is in no further group: its gang goes on without it.
TEST_F(NcclFake, AGpuThatFailsIsToldFromAPeerThatDoes) {
  constexpr int kEccUncorrectable = 214;
  EXPECT_THAT(Run(2,
                  [](Communicator& communicator) -> std::string {
                    Status status = communicator.Barrier();
                    if (!status.ok()) return "before: " + status.ToString();
                    Cuda().broken = kEccUncorrectable;
                    float sum = 1;
                    status =
                        communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32, ReduceOp::kSum);
                    return status.ToString();
                  }),
              ::testing::Contains(HasSubstr("DEVICE_FAILED")));
  const Backend& backend = *FindBackend("nccl").value();
  Cuda().devices = 0;
  EXPECT_EQ(backend.Listen("127.0.0.1").status().code(), StatusCode::kFailedPrecondition);
  Cuda().devices = 4;
  std::shared_ptr<Communicator> over =
      backend
          .Join(backend.Listen("127.0.0.1").value(), {0, 1, 1, kToken, {}}, {},
                Deadline::In(std::chrono::seconds(5)))
          .value();
  Cuda().devices = 0;
  EXPECT_EQ(backend.ListenAnew("127.0.0.1", std::move(over)).status().code(),
            StatusCode::kDeviceFailed);
}

// Each process sees one GPU, the same one.
TEST_F(NcclFake, TwoRanksOnOneGpuSayWhyAndThatTheyCannotBeInOneGroup) {
  Cuda().devices = 1;
  EXPECT_THAT(Run(2, SumOfRanks),
              Each("join: FAILED_PRECONDITION: rank 0 and rank 1: both are on the same GPU, and "
                   "NCCL needs one for each rank: give each worker a GPU of its own "
                   "(CUDA_VISIBLE_DEVICES), or start one worker for all of the host's"));
  EXPECT_EQ(Nccl().inits, 0);
  const Backend& backend = *FindBackend("nccl").value();
  const auto first = backend.Listen("127.0.0.1").value();
  const auto second = backend.Listen("127.0.0.1").value();
  EXPECT_THAT(backend.Conflict(first->address(), second->address()), HasSubstr("the same GPU"));
  std::vector<int> told;
  Options options;
  options.unreachable = [&](int rank, const std::string&) { told.push_back(rank); };
  const std::vector<std::string> members{first->address(), second->address()};
  EXPECT_FALSE(backend
                   .Join(backend.Listen("127.0.0.1").value(), {1, 2, 1, kToken, members}, options,
                         Deadline::In(std::chrono::seconds(5)))
                   .ok());
  EXPECT_THAT(told, ::testing::ElementsAre(0));
}

// Of several GPUs ranks choose as they meet; of one that is another's they have no choice.
TEST_F(NcclFake, RanksWithAGpuEachAreInNobodysWay) {
  const Backend& backend = *FindBackend("nccl").value();
  const std::string chosen = backend.Listen("127.0.0.1").value()->address();
  EXPECT_EQ(backend.Conflict(chosen, chosen), "");
  Cuda().devices = 1;
  setenv("LEPTON_FAKE_GPU", "a", 1);
  const std::string first = backend.Listen("127.0.0.1").value()->address();
  setenv("LEPTON_FAKE_GPU", "b", 1);
  const std::string second = backend.Listen("127.0.0.1").value()->address();
  unsetenv("LEPTON_FAKE_GPU");
  EXPECT_EQ(backend.Conflict(first, second), "");
  EXPECT_NE(backend.Conflict(first, first), "");
}

// NCCL does not know then that it is one GPU: several ranks can be tried on it.
TEST_F(NcclFake, RanksOfDifferentHostIdsMayHaveOneGpu) {
  const Backend& backend = *FindBackend("nccl").value();
  Cuda().devices = 1;
  setenv("LEPTON_FAKE_GPU", "a", 1);
  std::vector<std::string> addresses;
  for (const char* host : {"rank-0", "rank-1", "rank-1"}) {
    setenv("NCCL_HOSTID", host, 1);
    addresses.push_back(backend.Listen("127.0.0.1").value()->address());
  }
  unsetenv("NCCL_HOSTID");
  unsetenv("LEPTON_FAKE_GPU");
  EXPECT_EQ(backend.Conflict(addresses[0], addresses[1]), "");
  EXPECT_NE(backend.Conflict(addresses[1], addresses[2]), "");
}

TEST_F(NcclFake, MoreRanksThanGpusSayWhy) {
  Cuda().devices = 2;
  EXPECT_THAT(Run(3, SumOfRanks), ::testing::Contains(HasSubstr("NCCL needs one for each rank")));
}

// Three ranks are in an operation to which the fourth never comes: it aborts instead, from another
// thread while it waits for something else.
std::string AbortedByTheLast(Communicator& communicator) {
  const MonotonicTime begun = RealClock().Now();
  std::vector<float> data(1000);
  if (communicator.rank() < communicator.size() - 1) {
    const Status status = communicator.AllReduce(data.data(), data.data(), data.size(),
                                                 DataType::kFloat32, ReduceOp::kSum);
    if (SecondsSince(begun) > 1) return "told late";
    if (communicator.Barrier() != status) return "a later call fails differently";
    return communicator.status() == status ? status.ToString() : "the group's status is another";
  }
  std::string late;
  std::thread aborter([&] {
    std::this_thread::sleep_for(milliseconds(50));
    const MonotonicTime before = RealClock().Now();
    communicator.Abort(Cancelled("enough"));
    if (SecondsSince(before) > 0.5) late = "Abort took long";
  });
  Status status;  // what the others have sent for their sum may be taken for an answer
  while (status.ok()) {
    status = communicator.Recv(data.data(), data.size(), DataType::kFloat32, 0);
  }
  aborter.join();
  if (SecondsSince(begun) > 1) late = "its own call failed late";
  return late.empty() ? status.ToString() : late;
}

const char* const kToldOfTheAbort = "ABORTED: rank 3 aborted: CANCELLED: enough";

TEST_F(NcclFake, AnAbortFailsWhatAllRanksAreInAtOnce) {
  EXPECT_THAT(Run(4, AbortedByTheLast),
              ::testing::ElementsAre(kToldOfTheAbort, kToldOfTheAbort, kToldOfTheAbort,
                                     "CANCELLED: enough"));
  const MonotonicTime over = RealClock().Now();
  while (Nccl().aborts < 4 && SecondsSince(over) < 20) std::this_thread::yield();
  EXPECT_EQ(Nccl().aborts, 4);
  EXPECT_EQ(Cuda().elsewhere, 0);
}

TEST_F(NcclFake, AnAbortOfNcclThatHangsHoldsNobodyUp) {
  Nccl().hang = true;
  const MonotonicTime begun = RealClock().Now();
  EXPECT_THAT(Run(4, AbortedByTheLast),
              ::testing::ElementsAre(kToldOfTheAbort, kToldOfTheAbort, kToldOfTheAbort,
                                     "CANCELLED: enough"));
  EXPECT_LT(SecondsSince(begun), 4) << "the communicators' ends waited for it";
  EXPECT_EQ(Nccl().aborts, 0);
  Nccl().hang = false;
  while (Nccl().aborts < 4 && SecondsSince(begun) < 20) std::this_thread::yield();
  EXPECT_EQ(Nccl().aborts, 4);
}

TEST_F(NcclFake, ARankThatLeavesIsNamedAndItsLastMessageArrives) {
  const auto body = [](Communicator& communicator) -> std::string {
    std::vector<float> data(1000, 3.0f), got(1000);
    if (communicator.rank() == 1) {
      return communicator.Send(data.data(), data.size(), DataType::kFloat32, 0).ToString();
    }
    std::this_thread::sleep_for(milliseconds(100));  // by then it has left
    Status status = communicator.Recv(got.data(), got.size(), DataType::kFloat32, 1);
    if (!status.ok() || got != data) return "lost message: " + status.ToString();
    const MonotonicTime begun = RealClock().Now();
    status = communicator.Recv(got.data(), got.size(), DataType::kFloat32, 1);
    return SecondsSince(begun) < 4 ? status.ToString() : "told late";
  };
  EXPECT_THAT(Run(2, body),
              ::testing::ElementsAre("ABORTED: recv: rank 1 is gone: it left the group", "OK"));
}

TEST_F(NcclFake, ARankThatDoesNotComeInTimeIsNamed) {
  const auto body = [](Communicator& communicator) -> std::string {
    const MonotonicTime begun = RealClock().Now();
    if (communicator.rank() == 1) std::this_thread::sleep_for(milliseconds(600));
    float sum = 0;
    const Status status = communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32, ReduceOp::kSum);
    return SecondsSince(begun) < 2 ? status.ToString() : "told late";
  };
  const auto results = Run(3, body, milliseconds(200));
  EXPECT_THAT(results, Each(HasSubstr("rank 1")));
  EXPECT_THAT(results, ::testing::Contains(HasSubstr("DEADLINE_EXCEEDED: all-reduce (timeout ")));
  EXPECT_THAT(results[1], HasSubstr("ABORTED: rank "));
}

}  // namespace
}  // namespace lepton::collectives
