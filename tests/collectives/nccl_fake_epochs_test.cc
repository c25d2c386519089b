// Groups of the nccl back-end, one after the other, as ranks die, join and leave: without GPUs
// (nccl_fake_fixture.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "tests/collectives/nccl_fake_fixture.h"

namespace lepton::collectives {

void TrustShrinks(bool trusted);  // nccl_heritage.h, of builds with NCCL's headers

namespace {

using std::chrono::milliseconds;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int kHangs = 22808;  // the last NCCL whose shrink is known to

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
