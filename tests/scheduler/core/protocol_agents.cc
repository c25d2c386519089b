#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/index.h"
#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {

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
    // Mere repeats of orders, as a rule; but a timer may have been due.
    if (said.records.empty()) continue;
    out.starts.insert(out.starts.end(), said.starts.begin(), said.starts.end());
    out.stops.insert(out.stops.end(), said.stops.begin(), said.stops.end());
    out.groups.insert(out.groups.end(), said.groups.begin(), said.groups.end());
  }
}

void Explorer::Send(const Recorder& out) {
  World& world = node_.world;
  const auto push = [&](const std::string& worker, ModelOrder order) {
    ModelWorker& to = world.workers[static_cast<size_t>(std::stoi(worker.substr(1)))];
    if (to.up && to.linked) to.orders.push_back(std::move(order));
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
    push(worker, order);
  }
  for (const auto& [worker, stop] : out.stops) {
    ModelOrder order;
    order.kind = ModelOrder::kStop;
    order.seat = SeatOf(stop.task_id());
    order.alone = stop.alone();
    order.kill = stop.grace_ms() == 0;
    order.at_once = stop.at_once();
    push(worker, order);
  }
  for (const auto& [worker, group] : out.groups) {
    ModelOrder order;
    order.kind = ModelOrder::kGroup;
    order.seat = SeatOf(group.task_id());
    order.epoch = group.epoch();
    order.at_once = group.at_once();
    for (const wire::Member& member : group.members()) order.members.push_back(member.address());
    if (!order.members.empty()) CheckGroup(order);
    push(worker, order);
  }
}

void Explorer::Arrive(int worker) {
  ModelWorker& w = node_.world.workers[static_cast<size_t>(worker)];
  w.present = w.up = w.linked = true;
  Hello(worker);
}

void Explorer::Hello(int worker) {
  ModelWorker& w = node_.world.workers[static_cast<size_t>(worker)];
  w.greeted = true;
  w.known_lost = false;
  w.orders.clear();
  WorkerHello hello;
  hello.hello.set_protocol_version(1);
  hello.hello.set_worker_id(WorkerName(static_cast<size_t>(worker)));
  hello.hello.set_incarnation("i" + std::to_string(w.incarnation));
  hello.hello.set_host("host-" + WorkerName(static_cast<size_t>(worker)));
  hello.hello.set_slots(1);
  std::set<int> running;
  for (const auto& [seat, task] : node_.world.tasks) {
    if (task.worker == worker && task.alive()) running.insert(seat);
  }
  for (const ModelReport& report : w.reports) running.insert(report.seat);
  std::set<int> known;
  for (const auto& [seat, task] : node_.coordinator->tasks) {
    if (running.contains(seat) && IsAlive(task) && task.worker_id() == hello.hello.worker_id() &&
        task.incarnation() == hello.hello.incarnation()) {
      known.insert(seat);
    }
  }
  for (const int seat : running) {
    hello.hello.add_running()->set_task_id(fmt::format("j1.a1.r{}", seat));
  }
  Feed(fmt::format("hello {} i{} {}", worker, w.incarnation, fmt::join(running, " ")),
       std::move(hello));
  ModelWorker& after = node_.world.workers[static_cast<size_t>(worker)];
  if (options_.broken == Broken::kOrdersAreNotRepeated) after.orders.clear();
  // Welcome names those that it does not know any more: killed without a word.
  for (const int seat : running) {
    if (known.contains(seat)) continue;
    if (auto it = node_.world.tasks.find(seat); it != node_.world.tasks.end()) {
      if (it->second.alive()) node_.world.dead.insert(seat);
      it->second.phase = ModelTask::kOver;
    }
    std::erase_if(after.reports, [&](const ModelReport& r) { return r.seat == seat; });
  }
}

void Explorer::Report(int worker) {
  ModelWorker& w = node_.world.workers[static_cast<size_t>(worker)];
  const ModelReport report = w.reports.front();
  w.reports.pop_front();
  const std::string task_id = fmt::format("j1.a1.r{}", report.seat);
  wire::TaskReport out;
  out.set_task_id(task_id);
  out.set_wall_ms(node_.coordinator->now);
  // Its agent numbers them; what matters is that they grow.
  const auto known = node_.coordinator->tasks.find(report.seat);
  out.set_seq(known == node_.coordinator->tasks.end() ? 1 : known->second.last_seq() + 1);
  switch (report.kind) {
    case ModelReport::kStarted:
      out.mutable_started()->set_pid(42);
      break;
    case ModelReport::kEndpoint:
      out.mutable_endpoint()->set_address(fmt::format("{}/{}", report.seat, report.epoch));
      out.mutable_endpoint()->set_left_epoch(report.epoch);
      out.mutable_endpoint()->set_left_wall_ms(node_.coordinator->now);
      out.mutable_endpoint()->set_cause("the model");
      out.mutable_endpoint()->set_planned(report.planned);
      for (const int seat : report.left) {
        out.mutable_endpoint()->add_left(static_cast<uint32_t>(seat));
      }
      if (options_.broken == Broken::kCutsAreNotTold) break;
      for (const int seat : report.cannot) {
        out.mutable_endpoint()->add_unreachable()->set_seat(static_cast<uint32_t>(seat));
      }
      break;
    case ModelReport::kProgress:
      out.mutable_progress()->set_step(static_cast<uint64_t>(report.step));
      break;
    case ModelReport::kRecovered:
      out.mutable_recovered()->set_epoch(report.epoch);
      out.mutable_recovered()->set_step(static_cast<uint64_t>(report.step));
      out.mutable_recovered()->set_committed_wall_ms(node_.coordinator->now);
      break;
    case ModelReport::kFinished:
      out.mutable_finished()->set_code(report.code);
      out.mutable_finished()->set_signal(report.signal);
      out.mutable_finished()->set_saved(report.saved);
      if (report.model) out.mutable_finished()->set_model_manifest("m1");
      break;
  }
  TaskReported reported;
  reported.worker = WorkerId(WorkerName(static_cast<size_t>(worker)));
  reported.report = std::move(out);
  Feed("report " + report.Text(), std::move(reported));
}

void Explorer::Say(int seat, ModelReport report) {
  report.seat = seat;
  node_.world.workers[static_cast<size_t>(node_.world.tasks.at(seat).worker)].reports.push_back(
      std::move(report));
}

void Explorer::End(int seat, const std::string& code, int signal) {
  ModelReport report;
  report.kind = ModelReport::kFinished;
  report.code = code;
  report.signal = signal;
  if (signal != 0) node_.world.dead.insert(seat);
  report.saved = signal == 0 && node_.world.tasks.at(seat).saved;
  report.model = code == "OK" && Leads(seat, node_.world.tasks.at(seat).epoch);
  node_.world.tasks.at(seat).phase = ModelTask::kOver;
  Say(seat, report);
}

void Explorer::ExpandWorker(int w) {
  const ModelWorker& worker = base_->world.workers[static_cast<size_t>(w)];
  const std::string name = WorkerName(static_cast<size_t>(w));
  if (!worker.present) return Try(name + " arrives", false, [&] { Arrive(w); });
  const bool talks = worker.up && worker.linked;
  if (talks && !worker.greeted) Try(name + " says hello", false, [&] { Hello(w); });
  if (talks && worker.greeted && !worker.reports.empty()) {
    Try(name + " reports " + worker.reports.front().Text(), false, [&] { Report(w); });
  }
  if (worker.up && !worker.orders.empty()) {
    const ModelOrder order = worker.orders.front();
    const auto deliver = [&](bool again) {
      if (!again) node_.world.workers[static_cast<size_t>(w)].orders.pop_front();
      Deliver(order, w);
    };
    Try(name + " gets " + order.Text(), false, [&] { deliver(false); });
    if (order.kind == ModelOrder::kGroup) {
      Try("fault: " + name + " gets twice " + order.Text(), true, [&] { deliver(true); });
    }
  }
  if (!talks && !worker.known_lost && worker.greeted) {
    Try("the lease of " + name + " runs out", false, [&] {
      node_.world.workers[static_cast<size_t>(w)].known_lost = true;
      Feed("lost " + name, WorkerLost{WorkerId(name), "lease"});
    });
  }
  if (!worker.up && worker.known_lost) {
    Try(name + " is started again", false, [&] {
      ModelWorker& again = node_.world.workers[static_cast<size_t>(w)];
      ++again.incarnation;
      again.up = again.linked = true;
      Hello(w);
    });
  }
  if (worker.up && !worker.linked) {
    Try(name + " is connected again", false, [&] {
      ModelWorker& again = node_.world.workers[static_cast<size_t>(w)];
      again.linked = true;
      Hello(w);
    });
  }
  if (!worker.up) return;
  for (int other = w + 1; other < options_.workers; ++other) {
    if (!options_.links || base_->world.Cut(w, other)) continue;
    Try(kCutFault + name + " and " + WorkerName(static_cast<size_t>(other)), true,
        [&] { node_.world.cuts.emplace(w, other); });
  }
  Try("fault: " + name + " dies with its tasks", true, [&] {
    ModelWorker& dead = node_.world.workers[static_cast<size_t>(w)];
    dead.up = dead.linked = false;
    dead.orders.clear();
    dead.reports.clear();
    for (auto& [seat, task] : node_.world.tasks) {
      if (task.worker != w) continue;
      if (task.alive()) node_.world.dead.insert(seat);
      task.phase = ModelTask::kOver;
    }
  });
  if (!worker.linked) return;
  Try("fault: " + name + " is cut off from the coordinator", true, [&] {
    node_.world.workers[static_cast<size_t>(w)].linked = false;
    node_.world.workers[static_cast<size_t>(w)].orders.clear();
  });
  if (!worker.orders.empty()) {
    Try("fault: " + name + " loses its orders and its connection", true, [&] {
      node_.world.workers[static_cast<size_t>(w)].greeted = false;
      node_.world.workers[static_cast<size_t>(w)].orders.clear();
    });
  }
  if (worker.greeted) {
    const auto drain = [&] { Feed("drain " + name, DrainWorker{WorkerId(name), "model"}); };
    Try("fault: " + name + " is drained", true, drain,
        options_.drains > 0 ? &World::drains : &World::faults);
  }
}
}  // namespace lepton::scheduler::model
