// The nccl back-end without GPUs: over a stand-in for the CUDA run time, linked in its place, and
// one for NCCL, loaded in its (fake_nccl.cc). Ranks are threads. What the real ones do is for
// nccl_test.cc to show, where there are GPUs.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <thread>

#include "collectives/communicator.h"
#include "runtime/base/progress.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/fake_nccl.h"
#include "tests/collectives/gang.h"
#include "tests/runtime/cuda/fake_cudart.h"

extern "C" {  // of the CUDA run time
int cudaGetDevice(int* device);
int cudaSetDevice(int device);
}

namespace lepton::collectives {

void TrustShrinks(bool trusted);  // nccl_heritage.h, of builds with NCCL's headers

namespace {

using ::testing::Each;
using ::testing::HasSubstr;

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

using std::chrono::milliseconds;

constexpr int kHangs = 22808;  // the last NCCL whose shrink is known to
constexpr char kToken[] = "0123456789abcdef";

double SecondsSince(MonotonicTime then) {
  return std::chrono::duration<double>(RealClock().Now() - then).count();
}

std::string SumOfRanks(Communicator& communicator) {
  float sum = static_cast<float>(communicator.rank() + 1);
  const Status status = communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32, ReduceOp::kSum);
  if (!status.ok()) return status.ToString();
  const int size = communicator.size();
  return sum == static_cast<float>(size * (size + 1) / 2) ? "" : "sum " + std::to_string(sum);
}

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
                   "NCCL needs one for each rank"));
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

// A gang that goes on: groups of threads, one after the other, of whoever is there.
class Epochs {
 public:
  // `seats`: who is in the next group, by rank; each runs `body` in it.
  std::vector<std::string> Next(const std::vector<int>& seats, const RankBody& body) {
    ++epoch_;
    group_ = seats;
    const Backend& backend = *FindBackend("nccl").value();
    std::vector<std::unique_ptr<Endpoint>> endpoints;
    GroupSpec spec{.size = static_cast<int>(seats.size()), .epoch = epoch_, .token = kToken};
    spec.leaves = 4;
    for (const int seat : seats) {
      std::shared_ptr<Communicator> over = std::move(held_[seat]);
      endpoints.push_back(backend.ListenAnew("127.0.0.1", std::move(over)).value());
      spec.members.push_back(endpoints.back()->address());
    }
    std::vector<std::string> results(seats.size());
    std::vector<std::unique_ptr<Communicator>> joined(seats.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < seats.size(); ++rank) {
      threads.emplace_back([&, rank, spec]() mutable {
        spec.rank = static_cast<int>(rank);
        Options options;
        options.link_timeout = std::chrono::seconds(1);
        auto one = backend.Join(std::move(endpoints[rank]), spec, options,
                                Deadline::In(std::chrono::seconds(5)));
        if (!one.ok()) {
          results[rank] = "join: " + one.status().ToString();
          return;
        }
        joined[rank] = *std::move(one);
        results[rank] = body(*joined[rank]);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t rank = 0; rank < seats.size(); ++rank) {
      if (joined[rank] != nullptr) held_[seats[rank]] = std::move(joined[rank]);
    }
    return results;
  }
  // Somebody looks at its communicator as it leaves.
  std::shared_ptr<Communicator> Hold(int seat) { return held_.at(seat); }
  // Its process ends: the others are told by the kernel, here by an abort.
  void Dies(int seat) {
    held_.at(seat)->Abort(Aborted("killed"));
    held_.erase(seat);
    for (const int other : group_) {
      const auto held = held_.find(other);
      while (held != held_.end() && held->second && held->second->status().ok())
        std::this_thread::yield();
    }
  }

 private:
  uint64_t epoch_ = 0;
  std::vector<int> group_;
  std::map<int, std::shared_ptr<Communicator>> held_;
};

TEST_F(NcclFake, AGroupOfTheSurvivorsFollowsWhileTheOldCommunicatorHangsInItsAbort) {
  Nccl().version = kHangs;
  Epochs gang;
  ASSERT_THAT(gang.Next({0, 1, 2, 3}, SumOfRanks), Each(""));
  Nccl().hang = true;
  const MonotonicTime begun = RealClock().Now();
  gang.Dies(1);
  EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(""));
  gang.Dies(0);
  EXPECT_THAT(gang.Next({2, 3}, SumOfRanks), Each(""));
  EXPECT_LT(SecondsSince(begun), 5);
  EXPECT_EQ(Nccl().aborts, 0);
  EXPECT_EQ(Nccl().inits, 4 + 3 + 2);
  Nccl().hang = false;
  while (Nccl().aborts < 4 + 3 && SecondsSince(begun) < 20) std::this_thread::yield();
  EXPECT_EQ(Nccl().aborts, 4 + 3);
  EXPECT_EQ(Cuda().elsewhere, 0);
}

TEST_F(NcclFake, AGroupBreaksInTheMiddleOfASumAndTheNextOneDoesItAgain) {
  Epochs gang;
  ASSERT_THAT(gang.Next({0, 1, 2}, SumOfRanks), Each(""));
  const auto dies_in_it = [](Communicator& communicator) -> std::string {
    if (communicator.rank() == 1) {
      std::this_thread::sleep_for(milliseconds(50));
      communicator.Abort(Aborted("killed"));
      return "";
    }
    return SumOfRanks(communicator);
  };
  EXPECT_THAT(gang.Next({0, 1, 2}, dies_in_it),
              ::testing::ElementsAre(HasSubstr("killed"), "", HasSubstr("killed")));
  EXPECT_THAT(gang.Next({0, 2}, SumOfRanks), Each(""));
  EXPECT_THAT(gang.Next({0, 2}, RunConformance), Each(""));
}

// Nobody waits until what is over has been flushed.
TEST_F(NcclFake, RanksJoinAndLeaveAndOneThatIsAloneNeedsNoNccl) {
  Epochs gang;
  Nccl().flushes = true;
  const MonotonicTime begun = RealClock().Now();
  EXPECT_THAT(gang.Next({0}, SumOfRanks), Each(""));
  EXPECT_EQ(Nccl().inits, 0);
  EXPECT_THAT(gang.Next({0, 1}, SumOfRanks), Each(""));
  EXPECT_THAT(gang.Next({0, 1, 2, 3}, SumOfRanks), Each(""));
  EXPECT_THAT(gang.Next({3, 1}, SumOfRanks), Each(""));
  EXPECT_THAT(gang.Next({1}, SumOfRanks), Each(""));
  EXPECT_EQ(Nccl().inits, 2 + 4 + 2);
  EXPECT_LT(SecondsSince(begun), 5) << "which is how long a flush may take";
}

// The joiner holds no leaves at first, as TrainLoop has it.
TEST_F(NcclFake, AJoinersContributionIsLeftOutUntilItHoldsLeaves) {
  Epochs gang;
  EXPECT_THAT(gang.Next({0, 1, 2},
                        [](Communicator& communicator) -> std::string {
                          communicator.HoldLeaves(2);
                          float sum = communicator.rank() < 2 ? 1.0f : -0.0f;
                          Status status = communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32,
                                                                 ReduceOp::kSum);
                          if (!status.ok() || sum != 2.0f) return "before: " + std::to_string(sum);
                          communicator.HoldLeaves(3);
                          return SumOfRanks(communicator);
                        }),
              Each(""));
}

class NcclFakeShrink : public NcclFake {
 protected:
  void SetUp() override {
    NcclFake::SetUp();
    void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
    has_it_ = dlsym(library, "ncclCommShrink") != nullptr;
  }
  // Four ranks of which the second dies in a sum.
  static void UntilADeath(Epochs& gang) {
    ASSERT_THAT(gang.Next({0, 1, 2, 3}, SumOfRanks), Each(""));
    gang.Dies(1);
    Nccl().inits = Nccl().shrinks = 0;
  }
  static void ExpectMadeAnew(int ranks) {
    EXPECT_EQ(Nccl().shrinks, 0);
    EXPECT_EQ(Nccl().inits, ranks);
  }
  bool has_it_ = false;
};

TEST_F(NcclFakeShrink, SurvivorsOfADeathShrinkWhatTheyHaveWhereThisNcclCan) {
  Epochs gang;
  const auto dies_in_it = [](Communicator& communicator) -> std::string {
    if (communicator.rank() != 1) return SumOfRanks(communicator);
    std::this_thread::sleep_for(milliseconds(50));
    communicator.Abort(Aborted("killed"));
    return "";
  };
  EXPECT_THAT(gang.Next({0, 1, 2, 3}, dies_in_it)[0], HasSubstr("killed"));
  EXPECT_EQ(Nccl().inits, 4);
  EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(""));
  EXPECT_EQ(Nccl().inits, has_it_ ? 4 : 7);
  EXPECT_EQ(Nccl().shrinks, has_it_ ? 3 : 0);
  gang.Dies(0);
  EXPECT_THAT(gang.Next({2, 3}, RunConformance), Each("")) << "a shrunk one, too";
  EXPECT_EQ(Nccl().shrinks, has_it_ ? 5 : 0);
  const MonotonicTime begun = RealClock().Now();
  while (Nccl().aborts < 6 && SecondsSince(begun) < 20) std::this_thread::yield();
  EXPECT_EQ(Nccl().aborts, 6) << "the old ones";
  EXPECT_EQ(Cuda().elsewhere, 0);
}

TEST_F(NcclFakeShrink, AVersionThatIsKnownToHangInItIsNotAsked) {
  Nccl().version = kHangs;
  Epochs gang;
  UntilADeath(gang);
  EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(""));
  ExpectMadeAnew(3);
}

TEST_F(NcclFakeShrink, NotWithAJoinerNorInAnotherOrderNorWhereNothingBroke) {
  {
    Epochs gang;
    UntilADeath(gang);
    EXPECT_THAT(gang.Next({0, 2, 3, 4}, SumOfRanks), Each(""));
    ExpectMadeAnew(4);
  }
  {
    Epochs gang;
    UntilADeath(gang);
    EXPECT_THAT(gang.Next({2, 0}, SumOfRanks), Each(""));
    ExpectMadeAnew(2);
  }
  Epochs gang;
  ASSERT_THAT(gang.Next({0, 1, 2}, SumOfRanks), Each(""));
  Nccl().inits = 0;
  EXPECT_THAT(gang.Next({0, 2}, SumOfRanks), Each("")) << "a rank that left";
  ExpectMadeAnew(2);
  gang.Dies(0);
  Nccl().inits = 0;
  EXPECT_THAT(gang.Next({2}, SumOfRanks), Each("")) << "one alone";
  ExpectMadeAnew(0);
}

// All do the same: one that holds nothing any more is enough.
TEST_F(NcclFakeShrink, NotWhereOneOfThemHasLetGo) {
  Epochs gang;
  UntilADeath(gang);
  const std::shared_ptr<Communicator> seen = gang.Hold(2);
  EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(""));
  ExpectMadeAnew(3);
}

TEST_F(NcclFakeShrink, OneThatFailsIsFollowedByANewOne) {
  if (!has_it_) GTEST_SKIP() << "this stand-in has no ncclCommShrink";
  for (auto* trouble : {&Nccl().shrink_fails, &Nccl().shrink_hangs}) {
    Epochs gang;
    UntilADeath(gang);
    *trouble = true;
    const MonotonicTime begun = RealClock().Now();
    EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(HasSubstr("ncclCommShrink")));
    EXPECT_LT(SecondsSince(begun), 9);
    Nccl().inits = 0;
    EXPECT_THAT(gang.Next({0, 2, 3}, SumOfRanks), Each(""));
    EXPECT_EQ(Nccl().inits, 3);
    *trouble = false;
    // Which is not tried at each death anew.
    Nccl().inits = 0;
    gang.Dies(0);
    EXPECT_THAT(gang.Next({2, 3}, SumOfRanks), Each(""));
    EXPECT_EQ(Nccl().inits, 2);
    TrustShrinks(true);
  }
}

}  // namespace
}  // namespace lepton::collectives
