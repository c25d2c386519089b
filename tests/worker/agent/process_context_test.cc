// A task's side of the socket to its agent.
#include "worker/process_context.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
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

}  // namespace
}  // namespace lepton::worker
