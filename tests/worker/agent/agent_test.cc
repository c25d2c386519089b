// What a worker says of itself, and options that cannot work.
#include "worker/agent.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

TEST(AgentTest, HelloSaysWhatTheWorkerIs) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) {
    options.worker_id = "w-1";
    options.slots = 3;
    options.labels = {{"rack", "7"}};
    options.launcher = {"mpirun", 1, 2, "world"};
  });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  const wire::Hello hello = coordinator.Hellos().front();
  EXPECT_EQ(hello.protocol_version(), wire::kProtocolVersion);
  EXPECT_EQ(hello.worker_id(), "w-1");
  EXPECT_EQ(hello.slots(), 3u);
  EXPECT_EQ(hello.pid(), getpid());
  EXPECT_EQ(hello.labels().at("rack"), "7");
  EXPECT_EQ(hello.launcher(), "mpirun");
  EXPECT_EQ(hello.launcher_rank(), 1u);
  EXPECT_EQ(hello.launcher_world(), "world");
  EXPECT_GT(hello.memory_bytes(), 0u);
  EXPECT_FALSE(hello.incarnation().empty());
  EXPECT_TRUE(coordinator.AwaitHeartbeats(3));
}

TEST(AgentTest, BadOptionsAreRefused) {
  FakeCoordinator coordinator;
  AgentOptions options;
  options.coordinator = "nonsense";
  options.key = coordinator.pool_key();
  EXPECT_EQ(Agent::Create(options).status().code(), StatusCode::kInvalidArgument);
  options.coordinator = coordinator.endpoint();
  options.key.worker.secret_key = "short";
  EXPECT_EQ(Agent::Create(options).status().code(), StatusCode::kInvalidArgument);
  options.key = coordinator.pool_key();
  options.data_dir = "/proc/no-folder-here";
  EXPECT_FALSE(Agent::Create(options).ok());
}

}  // namespace
}  // namespace lepton::worker
