#include "tests/worker/agent/running_agent.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "runtime/base/clock.h"

namespace lepton::worker {

RunningAgent::RunningAgent(FakeCoordinator& coordinator,
                           const std::function<void(AgentOptions&)>& change) {
  AgentOptions options;
  options.coordinator = coordinator.endpoint();
  options.key = coordinator.pool_key();
  options.slots = 4;
  if (change) change(options);
  auto agent = Agent::Create(std::move(options));
  EXPECT_TRUE(agent.ok()) << agent.status().ToString();
  agent_ = std::move(*agent);
  thread_ = std::thread([this] { status_ = agent_->Run(); });
}

RunningAgent::~RunningAgent() {
  if (!thread_.joinable()) return;
  const Status status = Stop();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

Status RunningAgent::Stop() {
  agent_->Stop();
  return Join();
}

Status RunningAgent::Join() {
  thread_.join();
  return status_;
}

AgentProcess::AgentProcess(FakeCoordinator& coordinator, std::vector<std::string> arguments) {
  const std::string key = folder_.path() / "pool.key", data = folder_.path() / "data";
  EXPECT_TRUE(WriteFileAtomic(key, PoolKeyToJson(coordinator.pool_key()), 0600).ok());
  arguments.insert(arguments.begin(), {"agent_test", "agent", "--coordinator",
                                       coordinator.endpoint(), "--key", key, "--data-dir", data});
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    execv("/proc/self/exe", raw.data());
    _exit(127);
  }
}

void AgentProcess::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

bool AgentProcess::Ended() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ <= 0;
}

wire::StartTask Task(const std::string& id, const std::string& kind) {
  wire::StartTask start;
  start.set_task_id(id);
  start.set_kind(kind);
  start.set_size(1);
  start.set_slots(1);
  return start;
}

std::string AllText(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

bool Alive(int64_t pid) {
  return kill(static_cast<pid_t>(pid), 0) == 0;
}

bool EndsSoon(int64_t pid) {
  const auto ended = [pid] {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const size_t at = text.rfind(')');
    return at == std::string::npos || at + 2 >= text.size() || text[at + 2] == 'Z';
  };
  const Deadline deadline = Deadline::In(std::chrono::seconds(5));
  while (!ended()) {
    if (deadline.Expired()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace lepton::worker
