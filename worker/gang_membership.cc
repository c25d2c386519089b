#include "worker/gang_membership.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/base/logging.h"
#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

// While the coordinator is away, or peers fetch their inputs. A gang that can no longer meet is
// stopped by the coordinator much sooner.
constexpr Duration kLongestMeeting = std::chrono::minutes(10);
// A cut between two ranks is found once when it breaks their group, and by both of its ends when
// the next one meets: two link time-outs, and the rest of the budget is for going on without one of
// them.
constexpr int kLinkTimeoutsInBudget = 4;
constexpr int kBudgetsBetweenSlowEvents = 10;  // about one seat, or first of one link
constexpr int kMostDoublings = 10;

}  // namespace

GangMembership::GangMembership(const wire::StartTask& start, const spec::JobSpec& spec,
                               std::string bind_address, Report report)
    : start_(start),
      spec_(spec),
      bind_address_(std::move(bind_address)),
      report_(std::move(report)) {}

Status GangMembership::Ended() const {
  if (!stop_.empty()) return Cancelled("stopped while the gang was meeting: " + stop_);
  const bool hands_over = spec_.parallel.zero > 0 && epoch_ > 0 && !leave_at_once_;
  if (!leave_.empty() && !hands_over) return Cancelled("told to leave the gang: " + leave_);
  return Status::Ok();
}

Result<wire::TaskGroup> GangMembership::Await(uint64_t left) {
  std::unique_lock lock(mutex_);
  const auto known = [&] {
    return newest_ && newest_->epoch() > left && newest_->members_size() > 0;
  };
  const bool met = changed_.wait_until(lock, Deadline::In(kLongestMeeting).at(), [&] {
    return !Ended().ok() || known() || overtaken_ > left;
  });
  // Who is told to leave behind the list of members meets them first: perhaps it alone has the
  // state.
  const bool meets =
      known() && stop_.empty() && !leave_at_once_ && (spec_.parallel.zero == 0 || epoch_ > 0);
  if (!meets) LEPTON_RETURN_IF_ERROR(Ended());
  if (met && !known()) {
    wire::TaskGroup over;
    over.set_epoch(overtaken_);
    return over;
  }
  if (!met) return DeadlineExceeded("the gang did not meet within 10 minutes");
  return *newest_;
}

Duration GangMembership::link_timeout() const {
  return spec_.elastic.recovery_budget / kLinkTimeoutsInBudget;
}

Result<std::shared_ptr<collectives::Communicator>> GangMembership::Join(
    const wire::TaskGroup& members, std::unique_ptr<collectives::Endpoint> endpoint,
    wire::TaskEndpoint* found) const {
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
  options.timeout = kBudgetsOfStillness * spec_.elastic.recovery_budget;
  options.link_timeout = link_timeout();
  options.unreachable = [&](int rank, const std::string& why) {
    wire::Unreachable& one = *found->add_unreachable();
    one.set_seat(members.members(rank).seat());
    one.set_why(why);
  };
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<collectives::Communicator> joined,
                          backend->Join(std::move(endpoint), group, options,
                                        Deadline::In(spec_.elastic.recovery_budget)));
  return std::shared_ptr<collectives::Communicator>(std::move(joined));
}

// A joiner that cannot be in a group with a member must not break theirs by trying to.
void GangMembership::ProbeMembers(const collectives::Backend& backend, const std::string& address,
                                  wire::TaskEndpoint* found) const {
  const auto add = [&](int index, const std::string& why) {
    wire::Unreachable& one = *found->add_unreachable();
    one.set_seat(start_.probe(index).seat());
    one.set_why(why);
  };
  std::vector<std::string> addresses;
  for (const wire::Member& member : start_.probe()) addresses.push_back(member.address());
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::string why = backend.Conflict(address, addresses[i]);
    if (!why.empty()) add(static_cast<int>(i), why);
  }
  if (found->unreachable_size() > 0) return;
  for (const size_t index : collectives::FindUnreachable(addresses, link_timeout())) {
    add(static_cast<int>(index), "no connection in time");
  }
}

Result<Membership::Group> GangMembership::Next(const std::string& cause, const Parting& parting) {
  LEPTON_ASSIGN_OR_RETURN(const collectives::Backend* backend,
                          collectives::FindBackend(spec_.collectives));
  std::string why = cause;
  wire::TaskEndpoint found;
  std::vector<uint32_t> left;
  for (const int rank : parting.left) left.push_back(members_.members(rank).seat());
  while (true) {
    wire::TaskUp up;
    up.mutable_endpoint()->set_left_wall_ms(RealClock().WallMs());
    std::shared_ptr<collectives::Communicator> over;  // ends without the lock: pulses go on
    {
      std::lock_guard lock(mutex_);
      over.swap(current_);
      LEPTON_RETURN_IF_ERROR(Ended());
      up.mutable_endpoint()->set_left_epoch(epoch_);
    }
    LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<collectives::Endpoint> endpoint,
                            backend->ListenAnew(bind_address_, std::move(over)));
    up.mutable_endpoint()->set_address(endpoint->address());
    up.mutable_endpoint()->set_cause(why);
    up.mutable_endpoint()->set_planned(parting.planned && why == cause);
    // Said again if the next meeting fails: the coordinator may not know yet.
    *up.mutable_endpoint()->mutable_left() = {left.begin(), left.end()};
    up.mutable_endpoint()->set_corrupt(why.find(collectives::kCorruptBytes) != std::string::npos);
    if (up.endpoint().left_epoch() == 0) ProbeMembers(*backend, endpoint->address(), &found);
    up.mutable_endpoint()->mutable_unreachable()->Swap(found.mutable_unreachable());
    found.Clear();
    report_(up);
    LEPTON_ASSIGN_OR_RETURN(const wire::TaskGroup members, Await(up.endpoint().left_epoch()));
    if (members.members().empty()) {
      std::lock_guard lock(mutex_);
      epoch_ = members.epoch();
      why = "a newer epoch";
      continue;
    }
    Group group;
    group.epoch = members.epoch();
    group.ordered = RealClock().Now();
    auto joined = Join(members, std::move(endpoint), &found);
    group.joined = RealClock().Now();
    std::lock_guard lock(mutex_);
    epoch_ = group.epoch;
    if (joined.status().code() == StatusCode::kDeviceFailed) return joined.status();
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
    members_ = members;
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

void GangMembership::Watch() {
  std::shared_ptr<collectives::Communicator> gang;
  wire::TaskGroup members;
  uint64_t leave_for = 0;
  {
    std::lock_guard lock(mutex_);
    if (current_ == nullptr) return;
    gang = current_;
    members = members_;
    const bool told = newest_->epoch() > epoch_ && newest_->members().empty();
    if (told && newest_->at_once()) leave_for = newest_->epoch();
  }
  if (leave_for > 0) return TellBusy(leave_for);
  TellStragglers(*gang, members);
  TellSlowLinks(*gang, members);
}

void GangMembership::TellStragglers(const collectives::Communicator& gang,
                                    const wire::TaskGroup& members) {
  const Duration budget = spec_.elastic.recovery_budget;
  const std::vector<collectives::Straggler> behind = gang.Stragglers();
  if (behind.empty() || behind.front().waited < budget) return;
  // The first of those that wait speaks for all.
  int speaker = 0;
  for (const collectives::Straggler& one : behind) speaker += one.rank == speaker;
  if (speaker != gang.rank()) return;
  const MonotonicTime now = RealClock().Now();
  for (const collectives::Straggler& one : behind) {
    const uint32_t seat = members.members(one.rank).seat();
    const auto known = slow_.find(seat);
    if (known != slow_.end() && now - known->second < kBudgetsBetweenSlowEvents * budget) continue;
    slow_[seat] = now;
    wire::TaskUp up;
    up.mutable_straggler()->set_epoch(members.epoch());
    up.mutable_straggler()->set_seat(seat);
    up.mutable_straggler()->set_waited_ms(
        std::chrono::duration_cast<std::chrono::milliseconds>(one.waited).count());
    up.mutable_straggler()->set_computing(one.computing);
    report_(up);
  }
}

// Each end tells of the way from it. The same link may be slow for days: less and less often.
void GangMembership::TellSlowLinks(const collectives::Communicator& gang,
                                   const wire::TaskGroup& members) {
  for (const collectives::SlowLink& link : gang.SlowLinks()) {
    const MonotonicTime now = RealClock().Now();
    const uint32_t seat = members.members(link.to).seat();
    SlowTo& known = slow_links_[seat];
    if (now < known.again) continue;
    known.times = std::min(known.times + 1, kMostDoublings);
    known.again =
        now + (kBudgetsBetweenSlowEvents << (known.times - 1)) * spec_.elastic.recovery_budget;
    wire::TaskUp up;
    wire::TaskStraggler& told = *up.mutable_straggler();
    told.set_epoch(members.epoch());
    told.set_seat(seat);
    told.mutable_link()->set_rate(link.rate);
    told.mutable_link()->set_others(link.others);
    told.mutable_link()->set_every(link.every);
    report_(up);
  }
}

// Without it the coordinator would take a rank that computes or stores for long for one that hangs.
void GangMembership::TellBusy(uint64_t epoch) {
  const MonotonicTime now = RealClock().Now();
  const progress::Look look = progress::Now();
  const uint64_t ticks = look.ticks + look.moves;
  if (now - busy_told_ < link_timeout() || ticks == busy_ticks_) return;
  busy_told_ = now;
  busy_ticks_ = ticks;
  wire::TaskUp up;
  up.mutable_busy()->set_epoch(epoch);
  report_(up);
}

void GangMembership::OnGroup(wire::TaskGroup group) {
  std::shared_ptr<collectives::Communicator> over;
  {
    std::lock_guard lock(mutex_);
    if (group.epoch() <= epoch_ || (newest_ && group.epoch() < newest_->epoch())) return;
    if (group.members().empty() && newest_ && newest_->epoch() == group.epoch()) return;
    const bool unread = newest_ && newest_->members_size() > 0 && newest_->epoch() > epoch_;
    if (unread && group.members().empty()) overtaken_ = newest_->epoch();
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

void GangMembership::OnLeave(const std::string& reason, bool at_once) {
  std::lock_guard lock(mutex_);
  leave_at_once_ = leave_at_once_ || at_once;
  if (leave_.empty()) leave_ = reason.empty() ? "no reason given" : reason;
  changed_.notify_all();
}

}  // namespace lepton::worker
