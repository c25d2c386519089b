// Tasks spread over the GPUs of a host. No GPU is needed: agents are told how many there are, and
// tasks say what they were given.
#include "worker/gpu_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(GpuNames, AreNumbersUnlessTheWorkerWasGivenSome) {
  EXPECT_THAT(GpuNames(3, nullptr), ElementsAre("0", "1", "2"));
  EXPECT_THAT(GpuNames(2, "5, GPU-8932f937"), ElementsAre("5", "GPU-8932f937"));
  // CUDA sees those before the first that is none.
  EXPECT_THAT(GpuNames(1, "2,-1,3"), ElementsAre("2"));
  EXPECT_THAT(GpuNames(2, "2,"), ElementsAre("2"));
  EXPECT_THAT(GpuNames(0, "0,1"), IsEmpty());
}

// With locks, and where there can be none.
class GpuSharesTest : public ::testing::TestWithParam<bool> {
 protected:
  std::filesystem::path Folder() const {
    return GetParam() ? folder_.path() / "gpus" : folder_.path() / "no" / "such" / "place";
  }
  const TempFolder folder_;
};

TEST_P(GpuSharesTest, GoToTheGpuWithTheFewestTasks) {
  GpuShares shares({"0", "1", "MIG-GPU-8/1/0"}, Folder());
  std::vector<std::shared_ptr<const GpuShare>> held;
  const auto take = [&] { return held.emplace_back(shares.Take())->gpu; };
  EXPECT_EQ(take(), "0");
  EXPECT_EQ(take(), "1");
  EXPECT_EQ(take(), "MIG-GPU-8/1/0");
  // A rank was lost: who takes its place has its GPU.
  held[1].reset();
  EXPECT_EQ(take(), "1");
  // All are taken.
  EXPECT_EQ(take(), "0");
  EXPECT_EQ(take(), "1");
  // Of two tasks on GPU 0 the older ends, and both on GPU 1: the one task left counts all the same.
  held[0].reset();
  held[3].reset();
  held[5].reset();
  EXPECT_EQ(take(), "1");
}

TEST_P(GpuSharesTest, OfManyTasksAreEven) {
  GpuShares shares({"0", "1"}, Folder());
  std::vector<std::shared_ptr<const GpuShare>> held;
  int of_first = 0;
  for (int i = 0; i < 80; ++i) of_first += held.emplace_back(shares.Take())->gpu == "0";
  EXPECT_EQ(of_first, 40);
  EXPECT_EQ(GpuShares({}, Folder()).Take()->gpu, "");
}

// Where a GPU without a rank of the gang has more tasks than one that has one.
TEST_P(GpuSharesTest, RanksOfOneGangAreApart) {
  GpuShares shares({"0", "1"}, Folder());
  std::vector<std::shared_ptr<const GpuShare>> held;
  const auto take = [&](const std::string& gang) {
    return held.emplace_back(shares.Take(gang))->gpu;
  };
  EXPECT_EQ(take(""), "0");
  EXPECT_EQ(take(""), "1");
  EXPECT_EQ(take(""), "0");
  EXPECT_EQ(take(""), "1");
  held[1].reset();
  held[3].reset();
  EXPECT_EQ(take("gang"), "1");
  EXPECT_EQ(take("gang"), "0") << "not again 1, which has fewer";
  held[4].reset();
  EXPECT_EQ(take("gang"), "1") << "who takes a lost rank's place";
  EXPECT_EQ(take("gang"), "1") << "there are more ranks than GPUs";
}

INSTANTIATE_TEST_SUITE_P(Locked, GpuSharesTest, ::testing::Bool());

TEST(GpuShares, AreAgreedOnByAllWorkersOfAMachine) {
  const TempFolder folder;
  GpuShares mine({"0", "1", "2"}, folder.path() / "gpus");
  GpuShares yours({"0", "1", "2"}, folder.path() / "gpus");
  const auto a = mine.Take(), b = yours.Take(), c = mine.Take();
  EXPECT_EQ(a->gpu, "0");
  EXPECT_EQ(b->gpu, "1");
  EXPECT_EQ(c->gpu, "2");
}

std::string GpuOf(FakeCoordinator& coordinator, const std::string& task, bool gpu = true) {
  wire::StartTask start = Task(task, "visible");
  start.set_gpu(gpu);
  coordinator.Start(start);
  coordinator.AwaitReport(task, [](const auto& report) { return report.has_log(); });
  for (const std::string& line : coordinator.LogLines(task)) {
    if (line.starts_with("gpu ")) return line.substr(4);
  }
  return "nothing";
}

TEST(AgentGpus, EachTaskThatAsksSeesOne) {
  const TempFolder folder;
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  const auto two_gpus = [&](AgentOptions& options) {
    options.gpus = 2;
    options.gpu_folder = folder.path() / "gpus";
  };
  FakeCoordinator coordinator, another;
  RunningAgent agent(coordinator, two_gpus), neighbour(another, two_gpus);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  ASSERT_TRUE(another.AwaitWelcomed());
  EXPECT_EQ(GpuOf(coordinator, "none", /*gpu=*/false), "unset");
  EXPECT_EQ(GpuOf(coordinator, "first"), "0");
  // Another worker of this host, as under mpirun: both see both GPUs.
  EXPECT_EQ(GpuOf(another, "second"), "1");
  // The task ends: whoever comes next has what it had.
  coordinator.Stop("first", 5000);
  coordinator.AwaitFinished("first");
  EXPECT_EQ(GpuOf(another, "third"), "0");
}

TEST(AgentGpus, AreThoseThatTheWorkerWasGiven) {
  const TempFolder folder;
  ::setenv("CUDA_VISIBLE_DEVICES", "6,3", 1);
  {
    FakeCoordinator coordinator;
    RunningAgent agent(coordinator, [&](AgentOptions& options) {
      options.gpus = 2;
      options.gpu_folder = folder.path() / "gpus";
    });
    ASSERT_TRUE(coordinator.AwaitWelcomed());
    EXPECT_EQ(GpuOf(coordinator, "first"), "6");
    EXPECT_EQ(GpuOf(coordinator, "second"), "3");
    EXPECT_EQ(GpuOf(coordinator, "none", /*gpu=*/false), "6,3");
  }
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST(AgentGpus, OfAHostWithoutAnyAreNotPromised) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  EXPECT_EQ(GpuOf(coordinator, "first"), "unset");
}

}  // namespace
}  // namespace lepton::worker
