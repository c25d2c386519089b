// Faults on purpose, for `lepton run --chaos`: task processes on this host are killed, stopped,
// paused and told to leave, their workers are drained through the coordinator's API, and others
// join in their place, by a schedule that is a function of the seed. The weights must come out as
// if nothing had happened.
// Threads: Start and the destructor from one thread; it has a thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/api_client.h"
#include "runtime/base/status.h"

namespace lepton::cli {

struct ChaosPlan {
  enum class Kind { kKill, kKillTwo, kStop, kPause, kLeave, kDrain };
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
  // A further worker for one that was drained; called from the thread.
  using AddWorker = std::function<Status()>;
  // Follows the job through the API at `url`. Says what it does on standard error.
  Chaos(std::string url, std::string job_id, ChaosPlan plan, AddWorker add_worker);
  // Leaves no process stopped.
  ~Chaos();

 private:
  void Run();
  struct Rank {
    int pid = 0;
    std::string worker;
  };
  static std::vector<Rank> Victims(const nlohmann::json& job);
  void Hurt(const ChaosPlan::Fault& fault, const std::vector<Rank>& ranks, ApiClient& client);
  void Drain(const std::string& worker, ApiClient& client);

  const std::string url_, job_id_;
  const ChaosPlan plan_;
  const AddWorker add_worker_;
  std::atomic<bool> over_{false};
  std::vector<int> paused_;  // to be continued
  std::thread thread_;
};

}  // namespace lepton::cli
