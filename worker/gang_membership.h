// Membership through the agent and the coordinator: reports endpoints, awaits the list of members,
// joins the group.
// Threads: the On-calls from the thread that listens to the agent.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "runtime/spec/job_spec.h"
#include "worker/membership.h"

namespace lepton::worker {

// A group in which nobody computes, no byte moves and nobody dies for so many recovery budgets
// waits for ever.
inline constexpr int kBudgetsOfStillness = 3;

class GangMembership final : public Membership {
 public:
  using Report = std::function<void(const wire::TaskUp&)>;
  // All outlive it.
  GangMembership(const wire::StartTask& start, const spec::JobSpec& spec, std::string bind_address,
                 Report report);

  Result<Group> Next(const std::string& cause, const Parting& parting) override;
  bool regroup_requested() const override;
  bool leave_requested() const override;
  void ReportRecovered(const wire::TaskRecovered& recovered) override;

  // Now and then, several times within a quarter of the budget: says who is far behind, which links
  // are slow, and that this rank cannot leave its group yet since it computes.
  void Watch();

  void OnGroup(wire::TaskGroup group);
  void OnStop(const std::string& reason);  // the whole gang stops
  // This task goes; `at_once`: its peers cannot be reached, so that it can hand over nothing.
  void OnLeave(const std::string& reason, bool at_once);

 private:
  // The members of an epoch after `left`, once they are known; without any if an epoch that was
  // made with our endpoint is over already, so that another is due.
  Result<wire::TaskGroup> Await(uint64_t left);
  // Adds to `found` whom it cannot reach.
  Result<std::shared_ptr<collectives::Communicator>> Join(
      const wire::TaskGroup& members, std::unique_ptr<collectives::Endpoint> endpoint,
      wire::TaskEndpoint* found) const;
  // Adds to `found` the members with whom a rank at `address` cannot be in a group.
  void ProbeMembers(const collectives::Backend& backend, const std::string& address,
                    wire::TaskEndpoint* found) const;
  Duration link_timeout() const;
  Status Ended() const;  // with mutex_
  void TellStragglers(const collectives::Communicator& gang, const wire::TaskGroup& members);
  void TellSlowLinks(const collectives::Communicator& gang, const wire::TaskGroup& members);
  void TellBusy(uint64_t epoch);

  const wire::StartTask& start_;
  const spec::JobSpec& spec_;
  const std::string bind_address_;
  const Report report_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string stop_, leave_;  // reasons; empty: no
  bool leave_at_once_ = false;
  std::optional<wire::TaskGroup> newest_;  // order
  uint64_t overtaken_ = 0;  // an epoch whose members were not taken up before the next order came
  std::shared_ptr<collectives::Communicator> current_;
  wire::TaskGroup members_;                 // of current_
  std::map<uint32_t, MonotonicTime> slow_;  // seats, when last told of
  struct SlowTo {
    MonotonicTime again{};  // when it may be told of next
    int times = 0;
  };
  std::map<uint32_t, SlowTo> slow_links_;  // by the peer's seat
  MonotonicTime busy_told_{};              // by Watch alone, as the next
  uint64_t busy_ticks_ = 0;
  uint64_t epoch_ = 0;  // the newest that we were in, or tried to be
};

}  // namespace lepton::worker
