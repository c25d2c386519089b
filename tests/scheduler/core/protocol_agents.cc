#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/index.h"
#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {
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
  const std::string name = WorkerName(static_cast<size_t>(worker));
  WorkerHello hello;
  hello.hello.set_protocol_version(1);
  hello.hello.set_worker_id(name);
  hello.hello.set_incarnation("i" + std::to_string(w.incarnation));
  hello.hello.set_host("host-" + name);
  hello.hello.set_slots(1);
  std::set<int> running;
  for (const auto& [seat, task] : node_.world.tasks) {
    if (task.worker == worker && task.alive()) running.insert(seat);
  }
  for (const ReportPtr& report : w.reports) running.insert(report->seat);
  for (const ReportPtr& report : w.held) running.insert(report->seat);
  std::set<int> known;
  for (const auto& [seat, task] : node_.coordinator->tasks) {
    if (running.contains(seat) && IsAlive(task) && task.worker_id() == hello.hello.worker_id() &&
        task.incarnation() == hello.hello.incarnation()) {
      known.insert(seat);
    }
  }
  for (const int seat : running) {
    hello.hello.add_running()->set_task_id(TaskId(seat));
  }
  Tell(fmt::format("hello {} i{} {}", worker, w.incarnation, fmt::join(running, " ")), hello, name);
  ModelWorker& after = node_.world.workers[static_cast<size_t>(worker)];
  if (options_.broken == Broken::kOrdersAreNotRepeated) after.orders.clear();
  // Welcome names those that it does not know any more: killed without a word.
  for (const int seat : running) {
    if (known.contains(seat)) continue;
    if (auto it = node_.world.tasks.find(seat); it != node_.world.tasks.end()) {
      if (it->second.alive()) node_.world.dead.insert(seat);
      it->second.phase = ModelTask::kOver;
    }
    std::erase_if(after.reports, [&](const ReportPtr& r) { return r->seat == seat; });
    std::erase_if(after.held, [&](const ReportPtr& r) { return r->seat == seat; });
  }
}

void Explorer::Report(int worker) {
  ModelWorker& w = node_.world.workers[static_cast<size_t>(worker)];
  const ReportPtr front = w.reports.front();
  const ModelReport& report = *front;
  w.reports.erase(w.reports.begin());
  const std::string task_id = TaskId(report.seat);
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
    case ModelReport::kGone:
      out.mutable_gone()->set_code(report.code);
      out.mutable_gone()->set_signal(report.signal);
      out.mutable_gone()->set_saved(report.saved);
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
  Tell("report " + report.text, reported);
}

void Explorer::Say(int seat, ModelReport report) {
  report.seat = seat;
  node_.world.workers[static_cast<size_t>(node_.world.tasks.at(seat).worker)].reports.push_back(
      Seal(std::move(report)));
}

void Explorer::End(int seat, const std::string& code, int signal) {
  ModelReport report;
  report.kind = ModelReport::kFinished;
  report.code = code;
  report.signal = signal;
  World& world = node_.world;
  ModelTask& task = world.tasks.at(seat);
  if (signal != 0 || code == kDeviceFailed) world.dead.insert(seat);
  report.saved = signal == 0 && task.saved;
  report.model = code == "OK" && Leads(seat, task.epoch);
  task.phase = ModelTask::kOver;
  if (task.epoch == 0) return Say(seat, report);  // it had nothing to store yet
  ended_ = true;
  if (!in_two_steps_ || world.uploads == 0) return Say(seat, report);
  --world.uploads;
  ModelReport gone = report;
  gone.kind = ModelReport::kGone;
  gone.model = false;
  if (options_.broken != Broken::kEndsAreNotTold) Say(seat, gone);
  report.seat = seat;
  world.workers[static_cast<size_t>(task.worker)].held.push_back(Seal(std::move(report)));
}

void Explorer::ExpandWorker(int w) {
  const ModelWorker& worker = base_->world.workers[static_cast<size_t>(w)];
  const std::string name = WorkerName(static_cast<size_t>(w));
  if (!worker.present) return Try(name + " arrives", false, [&] { Arrive(w); });
  const bool talks = worker.up && worker.linked;
  if (talks && !worker.greeted) Try(name + " says hello", false, [&] { Hello(w); });
  if (talks && worker.greeted && !worker.reports.empty()) {
    Try(name + " reports " + worker.reports.front()->text, false, [&] { Report(w); });
  }
  if (talks && worker.greeted && !worker.held.empty()) {
    ++slow_;
    Try(name + " has stored all before: " + worker.held.front()->text, false, [&] {
      ModelWorker& stores = node_.world.workers[static_cast<size_t>(w)];
      stores.reports.push_back(stores.held.front());
      stores.held.erase(stores.held.begin());
    });
  }
  if (worker.up && !worker.orders.empty()) {
    const OrderPtr order = worker.orders.front();
    const auto deliver = [&](bool again) {
      std::vector<OrderPtr>& orders = node_.world.workers[static_cast<size_t>(w)].orders;
      if (!again) orders.erase(orders.begin());
      Deliver(order, w);
    };
    Try(name + " gets " + order->text, false, [&] { deliver(false); });
    if (order->kind == ModelOrder::kGroup) {
      Try("fault: " + name + " gets twice " + order->text, true, [&] { deliver(true); });
    }
  }
  if (!talks && !worker.known_lost && worker.greeted) {
    Try("the lease of " + name + " runs out", false, [&] {
      node_.world.workers[static_cast<size_t>(w)].known_lost = true;
      Tell("lost " + name, WorkerLost{WorkerId(name), "lease"});
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
    dead.held.clear();
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
    const auto drain = [&] { Tell("drain " + name, DrainWorker{WorkerId(name), "model"}); };
    Try("fault: " + name + " is drained", true, drain,
        options_.drains > 0 ? &World::drains : &World::faults);
  }
}
}  // namespace lepton::scheduler::model
