#include "tests/scheduler/core/protocol_coordinator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/invariants.h"
#include "scheduler/core/job_state.h"
#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {
namespace {

// For people alone.
bool IsNote(const std::string& bytes) {
  Record record;
  return record.ParseFromString(bytes) && record.has_job_noted();
}

std::string CoordinatorKey(const Snapshot& snapshot, int64_t now) {
  std::string key;
  for (const Job& job : snapshot.jobs()) key += fmt::format("j{}", int(job.state()));
  for (const Gang& g : snapshot.gangs()) {
    key +=
        fmt::format("|g{}.{}.[{}].{}{}{}{}{}{}.{}.{}", int(g.state()), g.epoch(),
                    fmt::join(g.members(), " "), g.forming(), g.forming_ms() > 0, g.has_recovery(),
                    g.progressed(), g.has_result(), g.winds_down(), g.faults_in_row(), g.kills());
    for (const Task& t : g.tasks()) {
      if (t.state() == TASK_FINISHED || t.state() == TASK_LOST) {
        key += fmt::format(",over{}{}{}", t.state() == TASK_LOST, t.code() == "OK",
                           t.group_epoch() > 0);
        continue;
      }
      if (t.gone()) key += fmt::format(",gone {}{}", t.code(), t.saved());
      key +=
          fmt::format(",{}.{}{}{}.{}.{}", int(t.state()), t.worker_id(), t.has_endpoint(),
                      int{t.leaving()} + int{t.leaves_at_once()}, t.left_epoch(), t.group_epoch());
      for (const wire::Unreachable& other : t.unreachable())
        key += fmt::format("!{}", other.seat());
    }
    for (const Cut& cut : g.cuts()) {
      key += fmt::format("|x{}-{}{}", cut.worker_a(), cut.worker_b(), now < cut.retry_at_ms());
    }
  }
  for (const Worker& w : snapshot.workers()) key += fmt::format("|w{}", int(w.state()));
  return key;
}

}  // namespace

std::shared_ptr<Image> TakeImage(const Reactor& reactor, std::set<std::string> greeted,
                                 int64_t now) {
  auto image = std::make_shared<Image>();
  Snapshot snapshot;
  snapshot.ParseFromString(reactor.state().Snapshot());
  for (Job& job : *snapshot.mutable_jobs()) {
    job.clear_events();
    job.clear_recoveries();
    image->job_state = JobStateName(job.state());
    image->over = IsTerminal(job.state()) || job.state() == JOB_RECOVERING ||
                  job.state() == JOB_QUEUED || job.state() == JOB_STOPPING || job.attempt() > 1;
    image->gone =
        image->over && (IsTerminal(job.state()) || job.attempt() > 1 || snapshot.gangs().empty());
  }
  for (const Gang& gang : snapshot.gangs()) {
    if (gang.attempt() > 1) continue;  // another story
    image->epoch = gang.epoch();
    image->members.insert(gang.members().begin(), gang.members().end());
    image->goes = Goes(gang);
    for (const Task& task : gang.tasks()) image->tasks[static_cast<int>(task.rank())] = task;
  }
  image->snapshot = snapshot.SerializeAsString();
  image->key = CoordinatorKey(snapshot, now);
  for (const std::string& name : greeted) image->key += "+" + name;
  image->greeted = std::move(greeted);
  image->now = now;
  return image;
}

int SeatOf(const std::string& task_id) {
  return std::stoi(task_id.substr(task_id.rfind(".r") + 2));
}

std::string WorkerName(size_t worker) {
  return "w" + std::to_string(worker);
}

std::string TaskId(int seat) {
  return fmt::format("j1.a1.r{}", seat);
}

// ---- the search's part ------------------------------------------------------------------------

// The reactor thinks that it was started anew: the workers that had come before are here still.
void Explorer::Greet(Reactor& reactor, const std::set<std::string>& greeted, int64_t now,
                     Recorder& out) {
  for (const std::string& name : greeted) {
    const auto worker = reactor.state().workers.find(WorkerId(name));
    if (worker == reactor.state().workers.end() || worker->second.state() == WORKER_LOST) continue;
    WorkerHello hello;
    hello.hello = worker->second.hello();
    const auto tasks = reactor.state().tasks_of_worker.find(WorkerId(name));
    if (tasks != reactor.state().tasks_of_worker.end()) {
      for (const std::string& task : tasks->second) hello.hello.add_running()->set_task_id(task);
    }
    Recorder said;
    reactor.On(Input{now, 1, std::move(hello)}, said);
    // Mere repeats of orders, as a rule, and word of its absence; but a timer may have been due.
    if (std::all_of(said.records.begin(), said.records.end(), IsNote)) continue;
    out.starts.insert(out.starts.end(), said.starts.begin(), said.starts.end());
    out.stops.insert(out.stops.end(), said.stops.begin(), said.stops.end());
    out.groups.insert(out.groups.end(), said.groups.begin(), said.groups.end());
    out.sent += said.sent;
  }
}

Explorer::Orders Explorer::OrdersOf(const Recorder& out) {
  Orders orders;
  const auto push = [&](const std::string& worker, ModelOrder order) {
    orders.emplace_back(static_cast<size_t>(std::stoi(worker.substr(1))), Seal(std::move(order)));
  };
  for (const auto& [worker, start] : out.starts) {
    // A later attempt is another story: this one is over.
    if (start.attempt() > 1) continue;
    ModelOrder order;
    order.kind = ModelOrder::kStart;
    order.seat = static_cast<int>(start.rank());
    order.joins = start.joins();
    for (const wire::Member& member : start.probe()) {
      order.probe.push_back(static_cast<int>(member.seat()));
    }
    push(worker, std::move(order));
  }
  auto next_stop = out.stops.begin();
  auto next_group = out.groups.begin();
  for (const char sent : out.sent) {
    ModelOrder order;
    if (sent == 'G') {
      const auto& [worker, group] = *next_group++;
      order.kind = ModelOrder::kGroup;
      order.seat = SeatOf(group.task_id());
      order.epoch = group.epoch();
      order.at_once = group.at_once();
      for (const wire::Member& member : group.members()) order.members.push_back(member.address());
      push(worker, std::move(order));
      continue;
    }
    const auto& [worker, stop] = *next_stop++;
    order.kind = ModelOrder::kStop;
    order.seat = SeatOf(stop.task_id());
    order.alone = stop.alone();
    order.kill = stop.grace_ms() == 0;
    order.at_once = stop.at_once();
    push(worker, std::move(order));
  }
  return orders;
}

void Explorer::Send(const Orders& orders) {
  for (const auto& [worker, order] : orders) {
    if (!order->members.empty()) CheckGroup(order);
    ModelWorker& to = node_.world.workers[worker];
    if (to.up && to.linked) to.orders.push_back(order);
  }
}

ImagePtr Explorer::Known(std::shared_ptr<Image> image) {
  const auto [it, fresh] = images_.try_emplace(image->key);
  if (fresh) {
    image->id = static_cast<int>(images_.size());
    it->second = std::move(image);
  }
  return it->second;
}

void Explorer::Feed(const std::string& what, const Inputs& inputs, const std::string& greets) {
  const auto [it, fresh] =
      outcomes_.try_emplace(std::to_string(node_.coordinator->id) + "<-" + what);
  if (fresh) it->second = Work(inputs, greets);
  node_.before = node_.coordinator;
  node_.coordinator = it->second.image;
  Send(it->second.orders);
}

Explorer::Outcome Explorer::Work(const Inputs& inputs, const std::string& greets) {
  ++result_.inputs;
  const Image& before = *node_.coordinator;
  Result<State> state = State::Restore(before.snapshot);
  if (!state.ok()) {
    Violation("snapshot: " + state.status().ToString());
    return {node_.coordinator, {}};
  }
  std::set<std::string> greeted = before.greeted;
  int64_t now = before.now;
  Reactor reactor(Sim::Options(), *std::move(state), now);
  Recorder out;
  Greet(reactor, greeted, now, out);
  if (!greets.empty()) greeted.insert(greets);
  inputs(reactor, &now, out);
  if (const Status ok = CheckInvariants(reactor.state()); !ok.ok()) Violation(ok.ToString());
  const ImagePtr after = Known(TakeImage(reactor, std::move(greeted), now));
  CheckAwaited(before, *after);
  return {after, OrdersOf(out)};
}

// Who is through, or saved, says with its last word what becomes of all.
void Explorer::CheckAwaited(const Image& before, const Image& after) {
  if (after.epoch == before.epoch) return;
  for (const int seat : before.members) {
    const auto known = after.tasks.find(seat);
    if (after.members.contains(seat) || known == after.tasks.end()) continue;
    const Task& task = known->second;
    if (!IsAlive(task) || !task.gone() || task.signal() != 0 || task.leaving()) continue;
    if (task.code() != "OK" && !task.saved()) continue;
    Violation(fmt::format("epoch {} goes on without seat {}, whose last word is on its way",
                          after.epoch, seat));
  }
}

void Explorer::Pass(bool early) {
  const World& world = base_->world;
  const auto here = [&](const ModelWorker& worker) {
    return worker.up && worker.linked && worker.greeted;
  };
  std::vector<std::pair<int, TasksStoring>> storing;
  std::vector<std::pair<int, TaskReported>> computing;
  std::string what = early ? "tick early" : "tick";
  for (size_t w = 0; w < world.workers.size() && !early; ++w) {
    const ModelWorker& worker = world.workers[w];
    if (!here(worker)) continue;
    for (const ReportPtr& report : worker.held) {
      storing.push_back({report->seat, {WorkerId(WorkerName(w)), {TaskId(report->seat)}}});
      what += fmt::format(" {} stores", report->seat);
    }
  }
  for (const auto& [seat, task] : world.tasks) {
    const auto w = static_cast<size_t>(task.worker);
    if (early || !IsTold(task) || !here(world.workers[w])) continue;
    TaskReported reported;
    reported.worker = WorkerId(WorkerName(w));
    reported.report.set_task_id(TaskId(seat));
    reported.report.mutable_busy()->set_epoch(task.newest->epoch);
    computing.emplace_back(seat, std::move(reported));
    if (options_.broken != Broken::kBusyIsNotTold) {
      what += fmt::format(" {} computes e{}", seat, task.newest->epoch);
    }
  }
  Feed(what, [&](Reactor& reactor, int64_t* now, Recorder& out) {
    reactor.On(Input{*now, 1, Tick{}}, out);
    for (int i = 0; i < 6; ++i) {
      const auto next = reactor.next_timer_ms();
      if (!out.records.empty() || !out.stops.empty() || !next) break;
      *now = std::max(*now, *next);
      Recorder said;
      for (const auto& [seat, stores] : storing) reactor.On(Input{*now, 1, stores}, said);
      for (auto& [seat, busy] : computing) {
        if (options_.broken == Broken::kBusyIsNotTold) break;
        const Task* known = reactor.state().FindTask(TaskId(seat));
        if (known == nullptr) continue;
        busy.report.set_wall_ms(*now);
        busy.report.set_seq(known->last_seq() + 1);
        reactor.On(Input{*now, 1, busy}, said);
      }
      reactor.On(Input{*now, 1, Tick{}}, out);
    }
  });
  const auto given_up = [&](int seat) {
    const auto was = node_.before->tasks.find(seat), is = node_.coordinator->tasks.find(seat);
    return was != node_.before->tasks.end() && IsAlive(was->second) &&
           (is == node_.coordinator->tasks.end() || is->second.state() == TASK_LOST);
  };
  for (const auto& [seat, stores] : storing) {
    if (given_up(seat)) {
      Violation(fmt::format("seat {} is given up while what it left is stored", seat));
    }
    const Image& before = *base_->coordinator;
    if (!before.goes || !before.members.contains(seat)) continue;
    const Task& known = before.tasks.at(seat);
    const bool awaited = known.signal() == 0 && known.code() != kDeviceFailed &&
                         (known.code() != "CANCELLED" || known.saved());
    if (known.gone() && !awaited) {
      Violation(fmt::format("all wait until what seat {} left is stored", seat));
    }
  }
  for (const auto& [seat, busy] : computing) {
    if (given_up(seat)) Violation(fmt::format("seat {} is given up while it computes", seat));
  }
}

}  // namespace lepton::scheduler::model
