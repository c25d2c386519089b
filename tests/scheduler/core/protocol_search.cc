#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "tests/scheduler/core/protocol_explorer.h"

namespace lepton::scheduler::model {

ModelResult Explorer::Run() {
  Node root;
  root.world.workers.resize(static_cast<size_t>(options_.workers));
  root.world.faults = options_.faults;
  root.world.drains = options_.drains;
  root.world.uploads = options_.uploads;
  Reactor reactor(Sim::Options(), State(), kModelStart);
  root.coordinator = root.before = Known(TakeImage(reactor, {}, kModelStart));
  node_ = root;
  for (int w = 0; w < options_.workers - options_.late; ++w) Arrive(w);
  spec::JobSpec spec = Sim::Elastic(options_.min_workers, options_.workers);
  spec.parallel.zero = options_.slices ? 1 : 0;
  SubmitJob submit;
  submit.spec = spec;
  submit.inputs = Sim::Inputs();
  Tell("submit", submit);
  Meet(-1, "submitted", false);
  for (size_t next = 0; next < frontier_.size() && result_.violation.empty(); ++next) {
    try {
      Expand(static_cast<int>(next));
    } catch (const std::exception& error) {
      Violation(std::string("the model: ") + error.what());
    }
    frontier_[next].reset();
    if (static_cast<int64_t>(frontier_.size()) > options_.most_states) {
      Violation("more states than expected");
    }
  }
  result_.states = static_cast<int64_t>(parents_.size());
  if (result_.violation.empty()) FindDeadEnds();
  return result_;
}

void Explorer::Meet(int from, std::string how, bool fault) {
  ++result_.transitions;
  Node& node = node_;
  for (ModelWorker& worker : node.world.workers) {
    while (!worker.orders.empty() && Ignores(*worker.orders.front())) {
      worker.orders.erase(worker.orders.begin());
    }
  }
  const std::string key = node.world.Key(options_) + "#" + std::to_string(node.coordinator->id);
  const auto [it, fresh] = ids_.try_emplace(std::hash<std::string>{}(key)*31 + key.size(),
                                            static_cast<int>(parents_.size()));
  if (from >= 0) edges_[static_cast<size_t>(from)].push_back({it->second, fault});
  if (!fresh) return;
  parents_.emplace_back(from, std::move(how));
  edges_.emplace_back();
  goal_.push_back(IsGood(node));
  if (options_.slices && IsGoal(node)) CheckNothingLost(node);
  result_.finished += goal_.back();
  frontier_.push_back(std::make_unique<Node>(std::move(node)));
}

void Explorer::Violation(const std::string& what) {
  if (!result_.violation.empty()) return;
  result_.violation = what;
  std::vector<std::string> trace = {what};
  if (!action_.empty()) trace.push_back(action_);
  for (int id = current_; id >= 0; id = parents_[static_cast<size_t>(id)].first) {
    trace.push_back(parents_[static_cast<size_t>(id)].second);
  }
  result_.trace.assign(trace.rbegin(), trace.rend());
}

// From every state the job comes to its end without further faults.
void Explorer::FindDeadEnds() {
  std::vector<std::vector<int>> back(edges_.size());
  std::deque<int> queue;
  std::vector<bool> good(goal_.size());
  for (size_t id = 0; id < edges_.size(); ++id) {
    for (const Edge& edge : edges_[id]) {
      if (!edge.fault) back[static_cast<size_t>(edge.to)].push_back(static_cast<int>(id));
    }
    if (!goal_[id]) continue;
    good[id] = true;
    queue.push_back(static_cast<int>(id));
  }
  for (; !queue.empty(); queue.pop_front()) {
    for (const int id : back[static_cast<size_t>(queue.front())]) {
      if (good[static_cast<size_t>(id)]) continue;
      good[static_cast<size_t>(id)] = true;
      queue.push_back(id);
    }
  }
  const auto dead = std::find(good.begin(), good.end(), false);
  if (dead == good.end()) return;
  current_ = static_cast<int>(dead - good.begin());
  action_ = "... and nothing that may happen leads to an end:" + GoOn(current_);
  Violation("deadlock");
}

// What may happen from a state on, without faults: one way as far as it goes.
std::string Explorer::GoOn(int id) const {
  std::string text;
  std::set<int> seen;
  for (bool moved = true; moved;) {
    moved = false;
    seen.insert(id);
    for (const Edge& edge : edges_[static_cast<size_t>(id)]) {
      if (edge.fault || seen.contains(edge.to)) continue;
      id = edge.to;
      text += " " + parents_[static_cast<size_t>(id)].second + ";";
      moved = true;
      break;
    }
  }
  return text;
}

void Explorer::CheckGroup(const OrderPtr& sent) {
  const ModelOrder& order = *sent;
  ModelEpoch& epoch = node_.world.epochs[order.epoch];
  if (!epoch.group) {
    epoch.group = sent;
    for (const int seat : order.seats) {
      const auto task = node_.world.tasks.find(seat);
      if (task == node_.world.tasks.end() || task->second.phase != ModelTask::kTraining) continue;
      Violation(fmt::format("epoch {} is sent out while seat {} trains in epoch {}", order.epoch,
                            seat, task->second.epoch));
    }
  }
  if (epoch.group->members != order.members) {
    Violation(fmt::format("epoch {} has two lists of members: [{}] and [{}]", order.epoch,
                          fmt::join(epoch.group->members, " "), fmt::join(order.members, " ")));
  }
}

// A step that an older epoch has committed is where a newer one begins, at the latest; and no
// older epoch goes on beside it.
void Explorer::OnReduced(uint64_t number, int step) {
  ModelEpoch& epoch = node_.world.epochs[number];
  if (epoch.first_step >= 0) return;
  epoch.first_step = step;
  for (const auto& [older, its] : node_.world.epochs) {
    if (older < number && its.applied > step) {
      Violation(fmt::format("epoch {} begins at step {}, but epoch {} had committed step {}",
                            number, step, older, its.applied));
    }
  }
}

void Explorer::OnApplied(uint64_t number, int step) {
  ModelEpoch& epoch = node_.world.epochs[number];
  epoch.applied = std::max(epoch.applied, step);
  for (const auto& [newer, its] : node_.world.epochs) {
    if (newer > number && its.first_step >= 0 && step > its.first_step) {
      Violation(fmt::format("epoch {} commits step {} beside epoch {}, which began at step {}",
                            number, step, newer, its.first_step));
    }
  }
}

void Explorer::Expand(int id) {
  const std::unique_ptr<Node>& held = frontier_[static_cast<size_t>(id)];
  base_ = held.get();
  view_ = &base_->world;
  current_ = id;
  usual_ = slow_ = 0;
  if (IsGoal(*base_)) return;
  for (int w = 0; w < options_.workers; ++w) ExpandWorker(w);
  for (const auto& [seat, task] : base_->world.tasks) {
    if (!task.alive()) continue;
    const int before = usual_;
    ExpandTask(seat, task);
    if (IsTold(task)) slow_ += usual_ - before;
  }
  ExpandGroups();
  // When nothing else can happen at once, time passes.
  if (usual_ == slow_) Try("time passes", false, [&] { Pass(/*early=*/false); });
  Try("fault: a timer fires early", true, [&] { Pass(/*early=*/true); });
  Try("fault: the coordinator is killed", true, [&] { KillCoordinator(); });
}

void Explorer::KillCoordinator() {
  if (options_.broken == Broken::kOrdersBeforeTheJournal) node_.coordinator = node_.before;
  auto image = std::make_shared<Image>(*node_.coordinator);
  image->key = image->key.substr(0, image->key.find('+'));
  image->greeted.clear();
  node_.coordinator = node_.before = Known(std::move(image));
  for (ModelWorker& w : node_.world.workers) {
    w.greeted = false;
    w.orders.clear();
  }
}
}  // namespace lepton::scheduler::model

namespace lepton::scheduler {

ModelResult ExploreProtocol(const ModelOptions& options) {
  return model::Explorer(options).Run();
}

}  // namespace lepton::scheduler
