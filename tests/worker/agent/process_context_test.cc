// A task's side of the socket to its agent.
#include "worker/process_context.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <thread>

#include "runtime/base/file.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// 0: told to stop. 1: nothing happened for ten seconds.
[[noreturn]] void OutliveTheAgent(const std::string& folder) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::exit(2);
  wire::FrameSocket socket(ends[0]);
  auto objects = storage::ObjectStore::Open(folder);
  if (!objects.ok()) std::exit(3);
  wire::StartTask start;
  start.set_elastic(true);
  ProcessContext context(&socket, start, spec::JobSpec{}, *std::move(objects), "127.0.0.1");
  close(ends[1]);
  const Deadline deadline = Deadline::In(seconds(10));
  while (!deadline.Expired()) {
    if (context.stop_requested()) std::_Exit(0);
    std::this_thread::sleep_for(milliseconds(1));
  }
  std::_Exit(1);
}

// The kernel kills a task whose agent has died, a moment after it has closed the agent's sockets. A
// task that takes the closed socket for an order to stop has the whole gang stop in that moment.
TEST(ProcessContextTest, ATaskWhoseAgentIsGoneDiesAndAsksNobodyToStop) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TempFolder folder;
  EXPECT_EXIT(OutliveTheAgent(folder.path().string()), testing::KilledBySignal(SIGKILL), "");
}

// A `lepton run` that is stopped (Ctrl-Z) does not stop its tasks.
TEST(ProcessContextTest, AnAgentThatDoesNotReadLosesNothingAndIsStillHeard) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd ours(ends[0]), agents(ends[1]);
  const TempFolder folder;
  auto objects = storage::ObjectStore::Open(folder.path());
  ASSERT_TRUE(objects.ok());
  wire::FrameSocket socket(ours.get()), agent(agents.get());
  wire::StartTask start;
  start.set_pulse_ms(1);
  std::optional<ProcessContext> context;
  context.emplace(&socket, start, spec::JobSpec{}, *std::move(objects), "127.0.0.1");
  constexpr uint64_t kReports = 2'000;  // more than the socket holds
  std::thread task([&] {
    wire::TaskProgress progress;
    for (uint64_t step = 1; step <= kReports; ++step) {
      progress.set_step(step);
      context->ReportProgress(progress);
    }
    context->Finish(Status::Ok());
  });
  std::this_thread::sleep_for(milliseconds(300));
  wire::TaskDown order;
  order.mutable_stop()->set_reason("test");
  ASSERT_TRUE(agent.Send(order, Deadline::In(seconds(1))).ok());
  const Deadline deadline = Deadline::In(seconds(3));
  while (!context->stop_requested() && !deadline.Expired()) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(context->stop_requested());
  uint64_t steps = 0;
  wire::TaskUp up;
  while (agent.Receive(&up, Deadline::In(seconds(5))).ok() && !up.has_finished()) {
    if (!up.has_progress()) continue;
    EXPECT_EQ(up.progress().step(), ++steps);
  }
  EXPECT_TRUE(up.has_finished());
  EXPECT_EQ(steps, kReports);
  task.join();
  context.reset();
}

}  // namespace
}  // namespace lepton::worker
