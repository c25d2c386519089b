#include "scheduler/loop/state_loop.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>

#include "runtime/base/metrics.h"
#include "runtime/base/named_thread.h"
#include "scheduler/loop/batch.h"

namespace lepton::scheduler {
namespace {

constexpr Duration kCollectEvery = std::chrono::seconds(5);
constexpr Duration kRefusesLately = std::chrono::seconds(30);
constexpr Duration kMinTick = std::chrono::milliseconds(5);
// So much later than it asked for a loop runs on whose process stood still; and how long it then
// reads what others have told before it looks at time-outs.
constexpr Duration kStoodStill = std::chrono::milliseconds(500);
constexpr Duration kCatchUp = std::chrono::seconds(2);

double Seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// What a caller sees when the disk refuses: exhausted when space would help, else unavailable.
Status JournalStatus(const Status& cause) {
  const std::string message =
      "nothing was changed: the journal cannot be written: " + cause.message();
  return cause.code() == StatusCode::kResourceExhausted ? ResourceExhausted(message)
                                                        : Unavailable(message);
}

}  // namespace

Result<std::unique_ptr<StateLoop>> StateLoop::Open(storage::MetadataStore& metadata,
                                                   storage::ObjectStore& objects, Clock& clock,
                                                   LoopOptions options) {
  auto loop =
      std::unique_ptr<StateLoop>(new StateLoop(metadata, objects, clock, std::move(options)));
  LEPTON_RETURN_IF_ERROR(loop->Rebuild());
  return loop;
}

StateLoop::~StateLoop() {
  Stop();
}

Status StateLoop::Rebuild() {
  State state;
  LEPTON_ASSIGN_OR_RETURN(const auto snapshot, metadata_.ReadSnapshot());
  snapshot_seq_ = snapshot_bytes_ = journal_bytes_ = 0;
  if (snapshot) {
    LEPTON_ASSIGN_OR_RETURN(state, State::Restore(snapshot->state));
    snapshot_seq_ = snapshot->seq;
    snapshot_bytes_ = snapshot->state.size();
  }
  LEPTON_RETURN_IF_ERROR(metadata_.Replay(snapshot_seq_, [&](uint64_t seq, std::string_view bytes) {
    journal_bytes_ += bytes.size();
    return ApplyBytes(bytes, state).WithContext(fmt::format("journal record {}", seq));
  }));
  if (state.last_seq != metadata_.last_seq()) {
    return DataLoss(fmt::format("the journal ends at record {} but its state at {}",
                                metadata_.last_seq(), state.last_seq));
  }
  wall_.Seen(state.last_wall_ms);
  reactor_ = std::make_unique<Reactor>(options_.reactor, std::move(state), wall_.Ms());
  return Status::Ok();
}

void StateLoop::Start(LoopSink& sink) {
  sink_ = &sink;
  thread_ = NamedThread("state", [this] { Run(); });
}

void StateLoop::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status StateLoop::JournalRefuses() const {
  // Without a write that shows it, nobody knows whether there is room again.
  const bool lately = RealClock().Now() < refuse_until_ + kRefusesLately;
  return refused_last_ && lately ? refused_with_ : Status::Ok();
}

void StateLoop::CollectAll() {
  keeper_.CollectAll(reactor_->state(), objects_);
}

void StateLoop::Post(Body body, Replied replied, Guard guard) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    items_.push_back({std::move(body), std::move(replied), std::move(guard)});
  }
  wake_.notify_one();
}

void StateLoop::Read(Query query) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    queries_.push_back(std::move(query));
  }
  wake_.notify_one();
}

void StateLoop::After(Duration delay, Query query) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    timers_.emplace(RealClock().Now() + delay, std::move(query));
    new_timer_ = true;
  }
  wake_.notify_one();
}

bool StateLoop::TickDue() {
  const auto timer = reactor_->next_timer_ms();
  return timer && *timer <= wall_.Ms() && RealClock().Now() >= next_tick_;
}

MonotonicTime StateLoop::NextWake() {
  MonotonicTime wake = RealClock().Now() + std::chrono::seconds(1);
  if (!timers_.empty()) wake = std::min(wake, timers_.begin()->first);
  if (const auto timer = reactor_->next_timer_ms()) {
    const auto left = std::chrono::milliseconds(std::max<int64_t>(0, *timer - wall_.Ms()));
    wake = std::min(wake, std::max(next_tick_, RealClock().Now() + left));
  }
  return wake;
}

StateLoop::Work StateLoop::Wait() {
  std::unique_lock lock(mutex_);
  const MonotonicTime wake = NextWake();
  wake_.wait_until(lock, wake,
                   [&] { return stopping_ || new_timer_ || !items_.empty() || !queries_.empty(); });
  // What others have told meanwhile is still on its way here, and counts before any time-out. Once:
  // where each wake is late time-outs must run all the same.
  if (RealClock().Now() - wake >= kStoodStill && !std::exchange(catching_up_, true)) {
    next_tick_ = std::max(next_tick_, RealClock().Now() + kCatchUp);
  }
  new_timer_ = false;  // an early return is harmless: the next wait knows the new timer
  Work work;
  if (items_.size() <= options_.max_batch) {
    work.items.swap(items_);
  } else {
    const auto end = items_.begin() + static_cast<ptrdiff_t>(options_.max_batch);
    work.items.assign(std::make_move_iterator(items_.begin()), std::make_move_iterator(end));
    items_.erase(items_.begin(), end);
  }
  work.queries.swap(queries_);
  const MonotonicTime now = RealClock().Now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    work.queries.push_back(std::move(timers_.begin()->second));
    timers_.erase(timers_.begin());
  }
  work.more = !items_.empty();
  work.stopping = stopping_ && items_.empty();
  return work;
}

void StateLoop::Run() {
  MonotonicTime collect_at = RealClock().Now() + kCollectEvery;
  while (true) {
    Work work = Wait();
    RunItems(std::move(work.items), work.more);
    for (const auto& query : work.queries) query(reactor_->state());
    if (work.stopping) break;
    MaybeSnapshot();
    if (RealClock().Now() >= collect_at) {
      keeper_.Collect(reactor_->state(), objects_);
      collect_at = RealClock().Now() + kCollectEvery;
    }
  }
}

void StateLoop::RunItems(std::vector<Item> items, bool more) {
  // Behind all that was told by now, but not for ever.
  if (!more) caught_up_ = RealClock().Now();
  const bool tick = TickDue() && (!more || RealClock().Now() - caught_up_ > kCatchUp);
  if (items.empty() && !tick) return;
  if (RealClock().Now() < refuse_until_) {
    next_tick_ = refuse_until_;
    return Refuse(items, refused_with_);
  }

  if (!reactor_->next_timer_ms()) wall_.CatchUp();
  Batch batch(items);
  for (size_t i = 0; i < items.size(); ++i) {
    Input input;
    input.wall_ms = wall_.Ms();
    input.request = items[i].replied ? i + 1 : 0;
    if (items[i].guard) {
      if (const Status status = items[i].guard(reactor_->state()); !status.ok()) {
        batch.Answer({.request = i + 1, .status = status, .id = {}, .existed = false});
        continue;
      }
    }
    input.body = std::move(items[i].body);
    reactor_->On(input, batch);
  }
  if (tick) {
    next_tick_ = RealClock().Now() + kMinTick;
    catching_up_ = false;
    reactor_->On(Input{.wall_ms = wall_.Ms(), .request = 0, .body = Tick{}}, batch);
  }
  if (!batch.records().empty()) {
    static auto& commits = metrics::Histogram("lepton_journal_commit_seconds",
                                              "Time of one group commit of the journal.");
    static auto& records =
        metrics::Counter("lepton_journal_records_total", "Records appended to the journal.");
    const MonotonicTime start = RealClock().Now();
    const auto appended = metadata_.Append(batch.records());
    if (!appended.ok()) return Fail(items, appended.status());
    refused_last_ = false;
    commits.Observe(Seconds(RealClock().Now() - start));
    records.Increment(static_cast<double>(batch.records().size()));
    for (const std::string& record : batch.records()) journal_bytes_ += record.size();
  }
  batch.Perform(*sink_, reactor_->state(), keeper_);
}

void StateLoop::Refuse(std::vector<Item>& items, const Status& status) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].replied) continue;
    items[i].replied({.request = i + 1, .status = status, .id = {}, .existed = false},
                     reactor_->state());
  }
}

void StateLoop::Fail(std::vector<Item>& items, const Status& status) {
  static auto& failures =
      metrics::Counter("lepton_journal_failures_total", "Group commits that the disk refused.");
  failures.Increment();
  LOG(ERROR) << "journal: " << status.ToString() << "; the batch is undone";
  refused_with_ = JournalStatus(status);
  refuse_until_ = RealClock().Now() + options_.retry_after;
  refused_last_ = true;
  // The state has applied records that the disk has not. Without a readable journal there is no
  // state to go on with; whatever was acknowledged is safe, and a restart finds it.
  const Status rebuilt = Rebuild();
  if (!rebuilt.ok()) LOG(FATAL) << "cannot read the journal back: " << rebuilt.ToString();
  sink_->JournalFailed(status);
  Refuse(items, refused_with_);
}

void StateLoop::MaybeSnapshot() {
  const State& state = reactor_->state();
  if (state.last_seq - snapshot_seq_ < options_.snapshot_every_records) return;
  if (journal_bytes_ < snapshot_bytes_) return;
  if (RealClock().Now() < refuse_until_) return;
  static auto& sizes = metrics::Gauge("lepton_snapshot_bytes", "Size of the newest snapshot.");
  const std::string bytes = state.Snapshot();
  const Status status = bytes.empty()
                            ? ResourceExhausted("the state is larger than 2 GiB")
                            : metadata_.WriteSnapshot(state.last_seq, bytes, state.last_seq);
  if (!status.ok()) LOG(WARNING) << "snapshot: " << status.ToString() << "; replay stays longer";
  // Also after a failure, so that it is tried again some records later and not on every batch.
  snapshot_seq_ = state.last_seq;
  if (!status.ok() && !bytes.empty()) return;
  journal_bytes_ = 0;
  if (bytes.empty()) return;
  snapshot_bytes_ = bytes.size();
  sizes.Set(static_cast<double>(bytes.size()));
}

}  // namespace lepton::scheduler
