// The scheduler's mind: On(input, state, effects), deterministic, without I/O or a clock. Equal
// inputs on an equal state give equal records and effects, on every machine.
// Threads: one caller at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/pattern.h"
#include "scheduler/core/effects.h"
#include "scheduler/core/inputs.h"
#include "scheduler/core/state.h"

namespace lepton::scheduler {

struct ReactorOptions {
  // Gang and replica tokens are SHA-256 of this secret and the gang's id. Random, private, and the
  // same after a restart (a replica's token is in the state, a gang's is sent with Start).
  std::string token_secret;
  std::string coordinator_incarnation;  // for Welcome
  uint32_t heartbeat_ms = 1'000;        // for Welcome
  uint32_t lease_ms = 15'000;           // for Welcome, and for workers to come back after a restart
  int64_t come_back_ms = 3'000;         // at least, for that: they try once in two seconds
  int64_t start_timeout_ms = 60'000;    // from Start, or the last word of progress while data is
                                        // got ready, to the last rank's Started or Endpoint
  uint32_t stop_grace_ms = 5'000;       // SIGTERM to SIGKILL, done by the agent
  int64_t stop_timeout_ms = 15'000;     // from Stop to the report; then Stop again, then lost
  int64_t backoff_cap_ms = 30'000;
  int64_t forget_lost_worker_ms = 600'000;
  size_t keep_finished_jobs = 10'000;      // those that ended last; 0: all
  std::string replica_bind = "127.0.0.1";  // StartTask.replica_bind
};

class Reactor {
 public:
  // `state` is new, or replayed. After a replay every worker that was there is unconfirmed until
  // its Hello; one that has not come within lease_ms or come_back_ms of
  // `wall_ms`, whichever is more, is lost.
  Reactor(ReactorOptions options, State state, int64_t wall_ms);

  void On(const Input& input, Effects& effects);

  const State& state() const { return state_; }
  // When a Tick is due next, in wall milliseconds; nothing when no time-out is pending. It may have
  // passed: since the last Tick, or while there was no reactor.
  std::optional<int64_t> next_timer_ms() const;

 private:
  friend class Turn;
  std::optional<int64_t> NextTimer() const;
  // Until when the workers that a gang is on may still be telling what came about while there was
  // no reactor: its time-outs do not count before.
  int64_t HeardMs(const Gang& gang) const;
  // When a gang that stops has had its time: since it was told to, or since a task of it was last
  // known to move what it left.
  int64_t StopDeadline(const Gang& gang) const;

  ReactorOptions options_;
  State state_;
  // Not durable, and never needed for a decision that a replay must repeat.
  int64_t now_ms_;
  int64_t ticked_ms_ = 0;   // the last Tick's time; 0: none yet
  int64_t put_off_ms_ = 0;  // until when Ticks left out gangs whose workers had not been heard
  bool dirty_ = true;       // slots or wishes changed: schedule
  std::map<WorkerId, int64_t> unconfirmed_;  // lost at this time unless Hello comes
  std::map<WorkerId, int64_t> returned_;     // of those: when it came
  // Until it is told: who was known at the start, and the newest sign of the coordinator before.
  struct Absence {
    Return seen;
    int64_t began_ms = 0;
    int64_t heard_ms = 0;
  };
  std::optional<Absence> absence_;
  struct PutOff {
    int times = 0;  // in a row
    int64_t until_ms = 0;
  };
  // Workers that refused tasks for which they seemed to have slots, by "", and those whose device
  // failed, by its name: for tasks of that device alone, and that one starts says nothing yet.
  std::map<std::pair<WorkerId, std::string>, PutOff> put_off_;
  std::unordered_map<std::string, uint64_t> seen_seq_;   // newest report per task, logs included
  std::unordered_map<std::string, int64_t> storing_ms_;  // when that was last said of a task
  // Compiled log_policies, and how many of a job's searches took too long: after kDearSearches
  // those that do are out.
  struct Policies {
    std::vector<std::optional<Pattern>> patterns;
    int dear = 0;
  };
  static constexpr int kDearSearches = 8;
  std::map<JobId, Policies> policies_;
  std::set<JobId> losing_;  // jobs whose newest checkpoint could not be stored, and which say so
  // What next_timer_ms() has said since the last input: it looks at all that is active.
  mutable std::optional<std::optional<int64_t>> timer_;
};

}  // namespace lepton::scheduler
