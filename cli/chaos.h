// Faults on purpose, for `lepton run --chaos`: task processes on this host are killed, stopped,
// paused and told to leave, by a schedule that is a function of the seed. The weights must come out
// as if nothing had happened.
// Threads: Start and the destructor from one thread; it has a thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::cli {

struct ChaosPlan {
  enum class Kind { kKill, kKillTwo, kStop, kPause, kLeave };
  struct Fault {
    double at = 0;  // share of the job's steps
    Kind kind = Kind::kKill;
    uint32_t victim = 0;  // among the tasks that run then, counted around
  };
  uint64_t seed = 0;
  std::vector<Fault> faults;  // by time

  // "seed=7" or "seed=7,faults=10" (6 by default). kInvalidArgument says what is wrong.
  static Result<ChaosPlan> Parse(const std::string& text);
};
const char* FaultName(ChaosPlan::Kind kind);

class Chaos {
 public:
  // Follows the job through the API at `url`. Says what it does on standard error.
  Chaos(std::string url, std::string job_id, ChaosPlan plan);
  // Leaves no process stopped.
  ~Chaos();

 private:
  void Run();
  void Hurt(const ChaosPlan::Fault& fault, const std::vector<int>& pids);

  const std::string url_, job_id_;
  const ChaosPlan plan_;
  std::atomic<bool> over_{false};
  std::vector<int> paused_;  // to be continued
  std::thread thread_;
};

}  // namespace lepton::cli
