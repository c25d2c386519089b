// How long a rank is waited for: as long as it moves, and no longer than the time-out once nobody
// does.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "collectives/backends/native_backend.h"
#include "collectives/split.h"
#include "runtime/base/progress.h"
#include "tests/collectives/gang.h"

namespace lepton::collectives {
namespace {

using std::chrono::milliseconds;

GangOptions Watched(const Backend* backend) {
  GangOptions options{backend, 3};
  options.communicator.timeout = milliseconds(400);
  options.communicator.link_timeout = milliseconds(200);
  return options;
}

class PatienceTest : public testing::TestWithParam<TransportChoice> {
 protected:
  // Rank 1 comes to the second operation after three time-outs, and computes, or seems not to. What
  // two of them sent each other before does not show in who is behind.
  std::vector<std::string> OneIsLate(bool ticks) {
    return RunGang(Watched(&backend_), [ticks](Communicator& comm) -> std::string {
      if (Status first = comm.Barrier(); !first.ok()) return first.ToString();
      int word = 0;
      for (int i = 0; i < 2 && comm.rank() < 2; ++i) {
        const Status sent = comm.rank() == 0 ? comm.Send(&word, 1, DataType::kInt32, 1)
                                             : comm.Recv(&word, 1, DataType::kInt32, 0);
        if (!sent.ok()) return sent.ToString();
      }
      std::string behind;
      if (comm.rank() == 1) {
        for (int i = 0; i < 60; ++i) {
          std::this_thread::sleep_for(milliseconds(20));
          if (ticks) progress::Tick();
        }
      }
      std::thread other([&] {
        std::this_thread::sleep_for(milliseconds(300));
        for (const Straggler& one : comm.Stragglers()) behind += std::to_string(one.rank) + ";";
      });
      const Status second = comm.Barrier();
      other.join();
      if (!second.ok()) return second.ToString();
      if (comm.rank() != 1 && behind != "1;") return "stragglers: '" + behind + "'";
      return "";
    });
  }
  NativeBackend backend_{{GetParam(), ""}};
};

TEST_P(PatienceTest, ARankThatIsSlowIsWaitedForAndNamed) {
  for (const std::string& result : OneIsLate(true)) EXPECT_EQ(result, "");
}

TEST_P(PatienceTest, AGroupThatStandsStillIsOver) {
  const std::vector<std::string> results = OneIsLate(false);
  int exceeded = 0;
  for (const int rank : {0, 2}) {
    EXPECT_NE(results[static_cast<size_t>(rank)].find("no answer from rank 1, and nobody"),
              std::string::npos)
        << results[static_cast<size_t>(rank)];
    exceeded += results[static_cast<size_t>(rank)].rfind("DEADLINE_EXCEEDED", 0) == 0;
  }
  EXPECT_GE(exceeded, 1);
}

// All are suspended at once while one waits for the other (a container that is paused, a job that
// Slurm suspends).
TEST_P(PatienceTest, AGroupThatWasFrozenDidNotStandStill) {
  GangOptions options = Watched(&backend_);
  options.size = 2;
  options.communicator.timeout = std::chrono::seconds(1);
  options.when_joined = [](const std::vector<pid_t>& ranks) {
    std::this_thread::sleep_for(milliseconds(200));
    for (const pid_t pid : ranks) kill(pid, SIGSTOP);
    std::this_thread::sleep_for(milliseconds(1'500));
    for (const pid_t pid : ranks) kill(pid, SIGCONT);
  };
  const auto results = RunGang(options, [](Communicator& comm) -> std::string {
    for (int i = 0; i < 60 && comm.rank() == 1; ++i) std::this_thread::sleep_for(milliseconds(10));
    const Status met = comm.Barrier();
    return met.ok() ? "" : met.ToString();
  });
  for (const std::string& result : results) EXPECT_EQ(result, "");
}

// One may take longer than anybody is patient with those that stand still.
TEST_P(PatienceTest, ASumMovesAsItGoesOn) {
  constexpr size_t kCount = size_t{4} << 20;
  for (const int size : {2, 3}) {
    GangOptions options = Watched(&backend_);
    options.size = size;
    options.communicator.timeout = std::chrono::seconds(60);
    const auto results = RunGang(options, [](Communicator& comm) -> std::string {
      std::vector<float> values(kCount, 1);
      const uint64_t before = progress::Now().moves;
      const Status sum =
          comm.AllReduce(values.data(), values.data(), kCount, DataType::kFloat32, ReduceOp::kSum);
      const uint64_t moves = progress::Now().moves - before;
      if (!sum.ok()) return sum.ToString();
      return moves >= 16 ? "" : "moved " + std::to_string(moves) + " times in 16 MiB";
    });
    for (const std::string& result : results) EXPECT_EQ(result, "");
  }
}

// Rank 2 waits for rank 1, which waits for rank 0, which is in no group with rank 2 but the first.
TEST_P(PatienceTest, WhoMovesIsWaitedForByThoseOfOtherGroupsToo) {
  const auto results = RunGang(Watched(&backend_), [this](Communicator& all) -> std::string {
    const auto part = [&](bool takes_part) {
      return Split(all, takes_part ? 0 : -1, "127.0.0.1", Watched(&backend_).communicator,
                   Deadline::In(std::chrono::seconds(20)));
    };
    const auto first = part(all.rank() < 2), second = part(all.rank() > 0);
    if (!first.ok() || !second.ok()) {
      return first.status().ToString() + second.status().ToString();
    }
    for (int i = 0; i < 60 && all.rank() == 0; ++i) {
      std::this_thread::sleep_for(milliseconds(20));
      progress::Tick();
    }
    for (const auto* group : {&first, &second}) {
      if (**group == nullptr) continue;
      if (Status met = (**group)->Barrier(); !met.ok()) return met.ToString();
    }
    const Status met = all.Barrier();
    return met.ok() ? "" : met.ToString();
  });
  for (const std::string& result : results) EXPECT_EQ(result, "");
}

INSTANTIATE_TEST_SUITE_P(Transports, PatienceTest,
                         testing::Values(TransportChoice::kShm, TransportChoice::kTcp),
                         [](const auto& info) {
                           return info.param == TransportChoice::kShm ? "Shm" : "Tcp";
                         });

}  // namespace
}  // namespace lepton::collectives
