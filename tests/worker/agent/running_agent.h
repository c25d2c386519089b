// A real agent against the fake coordinator, and what tests of it ask of processes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/status.h"
#include "tests/worker/agent/fake_coordinator.h"
#include "worker/agent.h"

namespace lepton::worker {

// An agent of four slots on a thread of its own; the destructor stops it and expects that to work.
class RunningAgent {
 public:
  explicit RunningAgent(FakeCoordinator& coordinator,
                        const std::function<void(AgentOptions&)>& change = {});
  ~RunningAgent();

  // Stop tells it to end, Join waits until it did by itself; both return what Run returned.
  Status Stop();
  Status Join();

 private:
  std::unique_ptr<Agent> agent_;
  Status status_;
  std::thread thread_;
};

// An agent of four slots in a process of its own, that can be stopped and killed; the destructor
// kills it.
class AgentProcess {
 public:
  // `arguments`: see RunAsAgent.
  explicit AgentProcess(FakeCoordinator& coordinator, std::vector<std::string> arguments = {});
  ~AgentProcess() { Kill(); }
  pid_t pid() const { return pid_; }
  void Kill();  // and waits until it is gone
  // Whether it has ended.
  bool Ended();

 private:
  TempFolder folder_;
  pid_t pid_ = -1;
};

// A task of one rank and one slot.
wire::StartTask Task(const std::string& id, const std::string& kind);

// One a line.
std::string AllText(const std::vector<std::string>& lines);

bool Alive(int64_t pid);
// Within five seconds the process is gone, or a zombie whose parent (init, in a container perhaps
// not a reaper) has not waited yet.
bool EndsSoon(int64_t pid);

}  // namespace lepton::worker
