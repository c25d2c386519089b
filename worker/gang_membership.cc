#include "worker/gang_membership.h"

#include <algorithm>
#include <utility>

#include "runtime/base/logging.h"

namespace lepton::worker {
namespace {

// While the coordinator is away, or peers fetch their inputs. A gang that can no longer meet is
// stopped by the coordinator much sooner.
constexpr Duration kLongestMeeting = std::chrono::minutes(10);

}  // namespace

GangMembership::GangMembership(const wire::StartTask& start, const spec::JobSpec& spec,
                               std::string bind_address, Report report)
    : start_(start),
      spec_(spec),
      bind_address_(std::move(bind_address)),
      report_(std::move(report)) {}

Status GangMembership::Ended() const {
  if (!stop_.empty()) return Cancelled("stopped while the gang was meeting: " + stop_);
  if (!leave_.empty()) return Cancelled("told to leave the gang: " + leave_);
  return Status::Ok();
}

Result<wire::TaskGroup> GangMembership::Await(uint64_t left) {
  std::unique_lock lock(mutex_);
  const auto known = [&] {
    return newest_ && newest_->epoch() > left && newest_->members_size() > 0;
  };
  const bool met = changed_.wait_until(lock, Deadline::In(kLongestMeeting).at(),
                                       [&] { return !Ended().ok() || known(); });
  LEPTON_RETURN_IF_ERROR(Ended());
  if (!met) return DeadlineExceeded("the gang did not meet within 10 minutes");
  return *newest_;
}

Result<std::shared_ptr<collectives::Communicator>> GangMembership::Join(
    const wire::TaskGroup& members, std::unique_ptr<collectives::Endpoint> endpoint) const {
  LEPTON_ASSIGN_OR_RETURN(const collectives::Backend* backend,
                          collectives::FindBackend(spec_.collectives));
  collectives::GroupSpec group;
  group.rank = static_cast<int>(members.rank());
  group.size = members.members_size();
  group.epoch = members.epoch();
  group.token = start_.group_token();
  group.leaves = spec_.shards();
  for (const wire::Member& member : members.members()) group.members.push_back(member.address());
  collectives::Options options;
  options.timeout = std::max<Duration>(options.timeout, spec_.elastic.recovery_budget);
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<collectives::Communicator> joined,
                          backend->Join(std::move(endpoint), group, options,
                                        Deadline::In(spec_.elastic.recovery_budget)));
  return std::shared_ptr<collectives::Communicator>(std::move(joined));
}

Result<Membership::Group> GangMembership::Next(const std::string& cause) {
  LEPTON_ASSIGN_OR_RETURN(const collectives::Backend* backend,
                          collectives::FindBackend(spec_.collectives));
  std::string why = cause;
  while (true) {
    wire::TaskUp up;
    up.mutable_endpoint()->set_left_wall_ms(RealClock().WallMs());
    {
      std::lock_guard lock(mutex_);
      current_.reset();
      LEPTON_RETURN_IF_ERROR(Ended());
      up.mutable_endpoint()->set_left_epoch(epoch_);
    }
    LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<collectives::Endpoint> endpoint,
                            backend->Listen(bind_address_));
    up.mutable_endpoint()->set_address(endpoint->address());
    up.mutable_endpoint()->set_cause(why);
    report_(up);
    LEPTON_ASSIGN_OR_RETURN(const wire::TaskGroup members, Await(up.endpoint().left_epoch()));
    Group group;
    group.epoch = members.epoch();
    group.ordered = RealClock().Now();
    auto joined = Join(members, std::move(endpoint));
    group.joined = RealClock().Now();
    std::lock_guard lock(mutex_);
    epoch_ = group.epoch;
    if (!joined.ok()) {
      why = joined.status().message();
      LOG(WARNING) << "epoch " << epoch_ << ": " << joined.status().ToString();
      continue;
    }
    LOG(INFO) << "epoch " << epoch_ << ": rank " << members.rank() << " of "
              << members.members_size();
    // An order that came while we joined.
    if (newest_->epoch() > epoch_ && newest_->at_once()) {
      why = "a newer epoch";
      continue;
    }
    current_ = *std::move(joined);
    group.gang = current_;
    return group;
  }
}

bool GangMembership::regroup_requested() const {
  std::lock_guard lock(mutex_);
  return newest_ && newest_->epoch() > epoch_;
}

bool GangMembership::leave_requested() const {
  std::lock_guard lock(mutex_);
  return !leave_.empty();
}

void GangMembership::ReportRecovered(const wire::TaskRecovered& recovered) {
  wire::TaskUp up;
  *up.mutable_recovered() = recovered;
  report_(up);
}

void GangMembership::OnGroup(wire::TaskGroup group) {
  std::shared_ptr<collectives::Communicator> over;
  {
    std::lock_guard lock(mutex_);
    if (group.epoch() <= epoch_ || (newest_ && group.epoch() < newest_->epoch())) return;
    if (group.members().empty() && newest_ && newest_->epoch() == group.epoch()) return;
    newest_ = std::move(group);
    if (newest_->at_once()) over = current_;
  }
  changed_.notify_all();
  if (over) over->Abort(Aborted("the coordinator forms a new group"));
}

void GangMembership::OnStop(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (stop_.empty()) stop_ = reason.empty() ? "no reason given" : reason;
  changed_.notify_all();
}

void GangMembership::OnLeave(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (leave_.empty()) leave_ = reason.empty() ? "no reason given" : reason;
  changed_.notify_all();
}

}  // namespace lepton::worker
