#include "tests/scheduler/core/protocol_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "scheduler/core/index.h"
#include "scheduler/core/invariants.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

constexpr int64_t kModelStart = 1'700'000'000'000;

// ---- what travels ---------------------------------------------------------------------------

struct ModelOrder {
  enum Kind { kStart, kGroup, kStop } kind = kStart;
  int seat = -1;
  uint64_t epoch = 0;
  std::vector<std::string> members;  // addresses; empty: leave what you are in
  bool at_once = false, alone = false, kill = false, joins = false;
  std::string Text() const {
    switch (kind) {
      case kStart:
        return fmt::format("start {}{}", seat, joins ? " joins" : "");
      case kGroup:
        return fmt::format("group {} e{} [{}]{}", seat, epoch, fmt::join(members, " "),
                           at_once ? " at once" : "");
      case kStop:
        return fmt::format("stop {}{}{}", seat, alone ? " alone" : "", kill ? " kill" : "");
    }
    return "";
  }
};

struct ModelReport {
  enum Kind { kStarted, kEndpoint, kProgress, kRecovered, kFinished } kind = kStarted;
  int seat = -1;
  uint64_t epoch = 0;  // left, or recovered in
  int step = 0;
  std::string code;
  int signal = 0;
  std::string Text() const {
    static const char* const kNames[] = {"started", "endpoint", "progress", "recovered",
                                         "finished"};
    return fmt::format("{} {} e{} s{} {} {}", kNames[kind], seat, epoch, step, code, signal);
  }
};

// ---- the world ------------------------------------------------------------------------------

struct ModelTask {
  enum Phase { kStarting, kListening, kTraining, kOver } phase = kStarting;
  int worker = 0;
  bool hung = false, has_state = false, stop = false, leave = false;
  uint64_t epoch = 0;  // the newest that it was in, or tried to be
  std::optional<ModelOrder> newest;
  int place = 0;                       // steps applied
  bool reduced = false;                // the sums of its next step are there
  bool regroup = false, goes = false;  // of them: the group ends, this rank goes
  bool alive() const { return phase != kOver; }
  std::string Address(int seat) const { return fmt::format("{}/{}", seat, epoch); }
};

struct ModelWorker {
  bool present = false, up = false, linked = false, greeted = false;
  int incarnation = 0;
  bool known_lost = false;  // the coordinator has given it up
  std::deque<ModelOrder> orders;
  std::deque<ModelReport> reports;
};

struct ModelEpoch {
  std::vector<std::string> members;  // as first sent out
  int first_step = -1;               // that was reduced in it
  int applied = -1;                  // the greatest step that a rank applied in it
};

struct World {
  std::vector<ModelWorker> workers;
  std::map<int, ModelTask> tasks;  // by seat
  std::map<uint64_t, ModelEpoch> epochs;
  int faults = 0;
  bool progressed = false;

  std::string Key() const {
    std::string key = fmt::format("f{}{}", faults, progressed);
    for (const ModelWorker& w : workers) {
      key += fmt::format("|{}{}{}{}{}.{}<", w.present, w.up, w.linked, w.greeted, w.known_lost,
                         w.incarnation);
      for (const ModelOrder& order : w.orders) key += order.Text() + ";";
      key += ">";
      for (const ModelReport& report : w.reports) key += report.Text() + ";";
    }
    for (const auto& [seat, t] : tasks) {
      if (!t.alive()) continue;
      key += fmt::format("|t{}.{}.{}.{}{}{}{}{}{}{}.{}.{}.{}", seat, t.worker, int(t.phase), t.hung,
                         t.has_state, t.stop, t.leave, t.reduced, t.regroup, t.goes, t.epoch,
                         t.place, t.newest ? t.newest->Text() : "");
    }
    for (const auto& [epoch, e] : epochs) {
      key += fmt::format("|e{}.{}.{}", epoch, e.first_step, e.applied);
    }
    return key;
  }
};

// ---- the coordinator: the real one ----------------------------------------------------------

// The reactor between two inputs.
struct Image {
  std::string snapshot;
  std::map<int, Task> tasks;      // of the job's gang, by seat
  std::set<std::string> greeted;  // workers that have come since it started
  int64_t now = kModelStart;
  std::string key;
  bool over = false;  // the job is: done, failed, or it waits for another start
  std::string job_state;
};
using ImagePtr = std::shared_ptr<const Image>;

std::string CoordinatorKey(const Snapshot& snapshot) {
  std::string key;
  for (const Job& job : snapshot.jobs()) key += fmt::format("j{}", int(job.state()));
  for (const Gang& g : snapshot.gangs()) {
    key +=
        fmt::format("|g{}.{}.[{}].{}{}{}{}{}.{}.{}", int(g.state()), g.epoch(),
                    fmt::join(g.members(), " "), g.forming(), g.forming_ms() > 0, g.has_recovery(),
                    g.progressed(), g.has_result(), g.faults_in_row(), g.kills());
    for (const Task& t : g.tasks()) {
      if (t.state() == TASK_FINISHED || t.state() == TASK_LOST) {
        key += fmt::format(",over{}{}", t.code() == "OK", t.group_epoch() > 0);
        continue;
      }
      key += fmt::format(",{}.{}{}{}.{}.{}", int(t.state()), t.worker_id(), t.has_endpoint(),
                         t.leaving(), t.left_epoch(), t.group_epoch());
    }
  }
  for (const Worker& w : snapshot.workers()) key += fmt::format("|w{}", int(w.state()));
  return key;
}

ImagePtr TakeImage(const Reactor& reactor, std::set<std::string> greeted, int64_t now) {
  auto image = std::make_shared<Image>();
  Snapshot snapshot;
  snapshot.ParseFromString(reactor.state().Snapshot());
  for (Job& job : *snapshot.mutable_jobs()) {
    job.clear_events();
    job.clear_recoveries();
    image->job_state = JobStateName(job.state());
    image->over = IsTerminal(job.state()) || job.state() == JOB_RECOVERING ||
                  job.state() == JOB_QUEUED || job.state() == JOB_STOPPING || job.attempt() > 1;
  }
  for (const Gang& gang : snapshot.gangs()) {
    for (const Task& task : gang.tasks()) image->tasks[static_cast<int>(task.rank())] = task;
  }
  image->snapshot = snapshot.SerializeAsString();
  image->key = CoordinatorKey(snapshot);
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

struct Node {
  World world;
  ImagePtr coordinator, before;  // before its newest input
};

struct Edge {
  int to = 0;
  bool fault = false;
};

// ---- the search -----------------------------------------------------------------------------

class Explorer {
 public:
  explicit Explorer(const ModelOptions& options) : options_(options) {}

  ModelResult Run() {
    Node root;
    root.world.workers.resize(static_cast<size_t>(options_.workers));
    root.world.faults = options_.faults;
    Reactor reactor(Sim::Options(), State(), kModelStart);
    root.coordinator = root.before = TakeImage(reactor, {}, kModelStart);
    node_ = root;
    for (int w = 0; w < options_.workers - options_.late; ++w) Arrive(w);
    const spec::JobSpec spec = Sim::Elastic(options_.min_workers, options_.workers);
    SubmitJob submit;
    submit.spec = spec;
    submit.inputs = Sim::Inputs();
    Feed("submit", std::move(submit));
    Meet(node_, -1, "submitted", false);
    for (size_t next = 0; next < frontier_.size() && result_.violation.empty(); ++next) {
      try {
        Expand(static_cast<int>(next));
      } catch (const std::exception& error) {
        action_ = base_->world.Key();
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

 private:
  // ---- nodes ----
  void Meet(const Node& node, int from, std::string how, bool fault) {
    ++result_.transitions;
    const std::string key = node.world.Key() + "#" + node.coordinator->key;
    const auto [it, fresh] = ids_.try_emplace(std::hash<std::string>{}(key)*31 + key.size(),
                                              static_cast<int>(parents_.size()));
    if (from >= 0) edges_[static_cast<size_t>(from)].push_back({it->second, fault});
    if (!fresh) return;
    parents_.emplace_back(from, std::move(how));
    edges_.emplace_back();
    goal_.push_back(IsGoal(node));
    result_.finished += goal_.back();
    frontier_.push_back(std::make_unique<Node>(node));
  }

  static bool IsGoal(const Node& node) { return node.coordinator->over; }

  void Violation(const std::string& what) {
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
  void FindDeadEnds() {
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
  std::string GoOn(int id) const {
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

  // ---- the coordinator ----
  // What an input makes of a coordinator is worked out once, whatever the world around it is.
  struct Outcome {
    ImagePtr image;
    Recorder out;
  };

  template <typename Body>
  void Feed(const std::string& what, Body body) {
    const auto [it, fresh] = outcomes_.try_emplace(node_.coordinator->key + "<-" + what);
    if (fresh) it->second = Work(std::move(body));
    node_.before = node_.coordinator;
    node_.coordinator = it->second.image;
    Send(it->second.out);
  }

  template <typename Body>
  Outcome Work(Body body) {
    ++result_.inputs;
    Outcome outcome{node_.coordinator, {}};
    Recorder& out = outcome.out;
    Result<State> state = State::Restore(node_.coordinator->snapshot);
    if (!state.ok()) {
      Violation("snapshot: " + state.status().ToString());
      return outcome;
    }
    std::set<std::string> greeted = node_.coordinator->greeted;
    int64_t now = node_.coordinator->now;
    Reactor reactor(Sim::Options(), *std::move(state), now);
    Greet(reactor, greeted, now, out);
    if constexpr (std::is_same_v<Body, WorkerHello>) greeted.insert(body.hello.worker_id());
    reactor.On(Input{now, 1, std::move(body)}, out);
    if constexpr (std::is_same_v<Body, Tick>) {
      // Time passes until something comes of it.
      for (int i = 0; i < 6; ++i) {
        const auto next = reactor.next_timer_ms();
        if (!out.records.empty() || !out.stops.empty() || !next) break;
        now = std::max(now, *next);
        reactor.On(Input{now, 1, Tick{}}, out);
      }
    }
    if (const Status ok = CheckInvariants(reactor.state()); !ok.ok()) Violation(ok.ToString());
    outcome.image = TakeImage(reactor, std::move(greeted), now);
    return outcome;
  }

  // The reactor thinks that it was started anew: the workers that had come before are here still.
  void Greet(Reactor& reactor, const std::set<std::string>& greeted, int64_t now, Recorder& out) {
    for (const std::string& name : greeted) {
      const auto worker = reactor.state().workers.find(WorkerId(name));
      if (worker == reactor.state().workers.end() || worker->second.state() == WORKER_LOST)
        continue;
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

  void Send(const Recorder& out) {
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
      push(worker, order);
    }
    for (const auto& [worker, stop] : out.stops) {
      ModelOrder order;
      order.kind = ModelOrder::kStop;
      order.seat = SeatOf(stop.task_id());
      order.alone = stop.alone();
      order.kill = stop.grace_ms() == 0;
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

  // ---- what must hold ----
  void CheckGroup(const ModelOrder& order) {
    ModelEpoch& epoch = node_.world.epochs[order.epoch];
    if (epoch.members.empty()) {
      epoch.members = order.members;
      for (const std::string& address : order.members) {
        const int seat = std::stoi(address);
        const auto task = node_.world.tasks.find(seat);
        if (task == node_.world.tasks.end() || task->second.phase != ModelTask::kTraining) continue;
        Violation(fmt::format("epoch {} is sent out while seat {} trains in epoch {}", order.epoch,
                              seat, task->second.epoch));
      }
    }
    if (epoch.members != order.members) {
      Violation(fmt::format("epoch {} has two lists of members: [{}] and [{}]", order.epoch,
                            fmt::join(epoch.members, " "), fmt::join(order.members, " ")));
    }
  }

  // A step that an older epoch has committed is where a newer one begins, at the latest; and no
  // older epoch goes on beside it.
  void OnReduced(uint64_t number, int step) {
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
  void OnApplied(uint64_t number, int step) {
    ModelEpoch& epoch = node_.world.epochs[number];
    epoch.applied = std::max(epoch.applied, step);
    for (const auto& [newer, its] : node_.world.epochs) {
      if (newer > number && its.first_step >= 0 && step > its.first_step) {
        Violation(fmt::format("epoch {} commits step {} beside epoch {}, which began at step {}",
                              number, step, newer, its.first_step));
      }
    }
  }

  // ---- the agents ----
  void Arrive(int worker) {
    ModelWorker& w = node_.world.workers[static_cast<size_t>(worker)];
    w.present = w.up = w.linked = true;
    Hello(worker);
  }

  void Hello(int worker) {
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
        it->second.phase = ModelTask::kOver;
      }
      std::erase_if(after.reports, [&](const ModelReport& r) { return r.seat == seat; });
    }
  }

  void Report(int worker) {
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
        if (report.code == "OK") out.mutable_finished()->set_model_manifest("m1");
        break;
    }
    TaskReported reported;
    reported.worker = WorkerId(WorkerName(static_cast<size_t>(worker)));
    reported.report = std::move(out);
    Feed("report " + report.Text(), std::move(reported));
  }

  void Say(int seat, ModelReport report) {
    report.seat = seat;
    node_.world.workers[static_cast<size_t>(node_.world.tasks.at(seat).worker)].reports.push_back(
        std::move(report));
  }

  void End(int seat, const std::string& code, int signal = 0) {
    ModelReport report;
    report.kind = ModelReport::kFinished;
    report.code = code;
    report.signal = signal;
    node_.world.tasks.at(seat).phase = ModelTask::kOver;
    Say(seat, report);
  }

  // ---- the tasks, as worker/gang_membership.cc and worker/train/elastic_train.cc ----
  void Deliver(const ModelOrder& order, int worker) {
    World& world = node_.world;
    if (order.kind == ModelOrder::kStart) {
      if (world.tasks.contains(order.seat)) return;
      ModelTask task;
      task.worker = worker;
      task.has_state = !order.joins;
      world.tasks[order.seat] = task;
      return;
    }
    const auto it = world.tasks.find(order.seat);
    if (it == world.tasks.end() || !it->second.alive()) return;
    ModelTask& task = it->second;
    if (order.kind == ModelOrder::kStop) {
      if (order.kill) return End(order.seat, "CANCELLED", 9);
      (order.alone ? task.leave : task.stop) = true;
      return;
    }
    if (order.epoch <= task.epoch) return;
    if (task.newest && order.epoch < task.newest->epoch) return;
    if (order.members.empty() && task.newest && task.newest->epoch == order.epoch) return;
    task.newest = order;
  }

  void Listen(int seat, uint64_t left) {
    ModelTask& task = node_.world.tasks.at(seat);
    task.phase = ModelTask::kListening;
    task.epoch = left;
    task.reduced = task.regroup = task.goes = false;
    ModelReport report;
    report.kind = ModelReport::kEndpoint;
    report.epoch = left;
    Say(seat, report);
  }

  bool HasGroup(const ModelTask& task) const {
    return task.phase == ModelTask::kListening && task.newest && !task.newest->members.empty() &&
           task.newest->epoch > task.epoch;
  }

  // The seats of an order's group that are not where it expects them: dead, or listening anew.
  bool Reachable(const ModelOrder& group) const {
    return std::all_of(group.members.begin(), group.members.end(), [&](const std::string& address) {
      const auto it = view_->tasks.find(std::stoi(address));
      if (it == view_->tasks.end() || !it->second.alive()) return false;
      return it->second.Address(it->first) == address;
    });
  }

  void Assemble(const ModelOrder& group) {
    int place = -1;
    for (const std::string& address : group.members) {
      const ModelTask& task = node_.world.tasks.at(std::stoi(address));
      if (task.has_state) place = std::max(place, task.place);
    }
    for (const std::string& address : group.members) {
      const int seat = std::stoi(address);
      ModelTask& task = node_.world.tasks.at(seat);
      if (place < 0) {  // nobody has the state
        End(seat, "INTERNAL");
        continue;
      }
      task.phase = ModelTask::kTraining;
      task.epoch = group.epoch;
      task.place = place;
      task.has_state = true;
    }
  }

  std::vector<int> MembersOf(uint64_t epoch) const {
    std::vector<int> seats;
    const auto it = view_->epochs.find(epoch);
    if (it == view_->epochs.end()) return seats;
    for (const std::string& address : it->second.members) seats.push_back(std::stoi(address));
    return seats;
  }

  // All members are in it, at the same step.
  bool CanReduce(uint64_t epoch, int step) const {
    const std::vector<int> members = MembersOf(epoch);
    return !members.empty() && std::all_of(members.begin(), members.end(), [&](int seat) {
      const auto it = view_->tasks.find(seat);
      if (options_.broken == Broken::kMinorityGoesOn &&
          (it == view_->tasks.end() || it->second.phase != ModelTask::kTraining ||
           it->second.epoch != epoch)) {
        return true;
      }
      return it != view_->tasks.end() && it->second.phase == ModelTask::kTraining &&
             it->second.epoch == epoch && it->second.place == step && !it->second.reduced &&
             !it->second.hung;
    });
  }

  void Reduce(uint64_t epoch, int step) {
    bool regroup = false;
    const std::vector<int> members = MembersOf(epoch);
    int leave = 0;
    for (const int seat : members) {
      const auto it = node_.world.tasks.find(seat);
      if (it == node_.world.tasks.end()) continue;
      const ModelTask& task = it->second;
      regroup = regroup || task.leave || task.stop || (task.newest && task.newest->epoch > epoch);
      leave += task.leave;
    }
    for (const int seat : members) {
      if (!node_.world.tasks.contains(seat)) continue;
      ModelTask& task = node_.world.tasks.at(seat);
      if (task.phase != ModelTask::kTraining || task.epoch != epoch) continue;
      task.reduced = true;
      task.regroup = regroup;
      task.goes = task.leave || task.stop || leave == static_cast<int>(members.size());
    }
    OnReduced(epoch, step);
  }

  bool Leads(int seat, uint64_t epoch) const {
    const std::vector<int> members = MembersOf(epoch);
    return !members.empty() && members[0] == seat;
  }

  void ApplyStep(int seat) {
    ModelTask& task = node_.world.tasks.at(seat);
    OnApplied(task.epoch, task.place);
    task.reduced = false;
    ++task.place;
    if (Leads(seat, task.epoch)) {
      ModelReport report;
      report.step = task.place;
      report.epoch = task.epoch;
      const bool first = node_.world.epochs[task.epoch].first_step == task.place - 1;
      if (task.epoch > 1 && first) {
        report.kind = ModelReport::kRecovered;
        Say(seat, report);
      }
      if (!node_.world.progressed) {
        node_.world.progressed = true;
        report.kind = ModelReport::kProgress;
        Say(seat, report);
      }
    }
    if (task.place == options_.steps || !task.regroup) return;
    if (task.goes) return End(seat, "CANCELLED");
    Listen(seat, task.epoch);
  }

  // A member is dead, or has left: what the watcher sees.
  bool PeerIsGone(int seat) const {
    const ModelTask& task = view_->tasks.at(seat);
    for (const int peer : MembersOf(task.epoch)) {
      const auto it = view_->tasks.find(peer);
      if (it == view_->tasks.end() || !it->second.alive()) return true;
      if (it->second.phase != ModelTask::kTraining || it->second.epoch != task.epoch) return true;
    }
    return false;
  }

  // ---- all that may happen in a state ----
  template <typename Do>
  void Try(const std::string& how, bool fault, Do act) {
    if (!result_.violation.empty() || (fault && base_->world.faults == 0)) return;
    node_ = *base_;
    action_ = how;
    if (fault) --node_.world.faults;
    view_ = &node_.world;
    try {
      act();
    } catch (const std::exception& error) {
      Violation(std::string("exception: ") + error.what());
    }
    view_ = &base_->world;
    if (!result_.violation.empty()) return;
    Meet(node_, current_, how, fault);
    if (!fault) ++usual_;
  }

  void Expand(int id) {
    const std::unique_ptr<Node>& held = frontier_[static_cast<size_t>(id)];
    base_ = held.get();
    view_ = &base_->world;
    current_ = id;
    usual_ = 0;
    if (IsGoal(*base_)) return;
    for (int w = 0; w < options_.workers; ++w) ExpandWorker(w);
    for (const auto& [seat, task] : base_->world.tasks) {
      if (task.alive()) ExpandTask(seat, task);
    }
    ExpandGroups();
    // When nothing else can happen, time passes.
    if (usual_ == 0) Try("time passes", false, [&] { Feed("tick", Tick{}); });
    Try("fault: a timer fires early", true, [&] { Feed("tick", Tick{}); });
    Try("fault: the coordinator is killed", true, [&] { KillCoordinator(); });
  }

  void KillCoordinator() {
    if (options_.broken == Broken::kOrdersBeforeTheJournal) node_.coordinator = node_.before;
    auto image = std::make_shared<Image>(*node_.coordinator);
    image->key = image->key.substr(0, image->key.find('+'));
    image->greeted.clear();
    node_.coordinator = node_.before = image;
    for (ModelWorker& w : node_.world.workers) {
      w.greeted = false;
      w.orders.clear();
    }
  }

  void ExpandWorker(int w) {
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
    Try("fault: " + name + " dies with its tasks", true, [&] {
      ModelWorker& dead = node_.world.workers[static_cast<size_t>(w)];
      dead.up = dead.linked = false;
      dead.orders.clear();
      dead.reports.clear();
      for (auto& [seat, task] : node_.world.tasks) {
        if (task.worker == w) task.phase = ModelTask::kOver;
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
      Try("fault: " + name + " is drained", true, [&] {
        Feed("drain " + name, DrainWorker{WorkerId(name), "model"});
      });
    }
  }

  void ExpandTask(int seat, const ModelTask& task) {
    const std::string name = "seat " + std::to_string(seat);
    Try("fault: " + name + " is killed", true, [&] { End(seat, "ABORTED", 9); });
    if (task.hung) {
      Try(name + " hangs: its agent kills it", false, [&] { End(seat, "ABORTED", 9); });
      return;
    }
    Try("fault: " + name + " hangs", true, [&] { node_.world.tasks.at(seat).hung = true; });
    if (task.phase == ModelTask::kStarting) {
      Try(name + " starts and listens", false, [&] {
        ModelReport started;
        started.kind = ModelReport::kStarted;
        Say(seat, started);
        Listen(seat, 0);
      });
      return;
    }
    if (task.phase == ModelTask::kListening) {
      if (task.stop || task.leave) {
        return Try(name + " goes", false, [&] { End(seat, "CANCELLED"); });
      }
      if (HasGroup(task) && !Reachable(*task.newest)) {
        Try(name + " cannot join", false, [&] { Listen(seat, task.newest->epoch); });
      }
      return;
    }
    if (task.reduced) Try(name + " applies the step", false, [&] { ApplyStep(seat); });
    const bool told = task.newest && task.newest->epoch > task.epoch && task.newest->at_once;
    if (told) Try(name + " leaves as it is told", false, [&] { Listen(seat, task.epoch); });
    if (task.place == options_.steps) {
      const std::vector<int> members = MembersOf(task.epoch);
      const auto leader = base_->world.tasks.find(members.empty() ? seat : members[0]);
      const bool stored = leader != base_->world.tasks.end() &&
                          leader->second.phase == ModelTask::kOver && Ended(leader->first);
      // The leader stores the model once all have measured it, which takes all of them.
      const bool all = std::all_of(members.begin(), members.end(), [&](int member) {
        const ModelTask& other = base_->world.tasks.at(member);
        return other.phase == ModelTask::kTraining && other.epoch == task.epoch && !other.hung &&
               other.place == options_.steps;
      });
      if ((Leads(seat, task.epoch) && all) || stored) {
        Try(name + " is done", false, [&] { End(seat, "OK"); });
        return;
      }
    }
    if (PeerIsGone(seat)) {
      Try(name + " sees that a peer is gone", false, [&] { Listen(seat, task.epoch); });
    }
  }

  // The seat's last word is that it is done, said or about to be.
  bool Ended(int seat) const {
    const ModelTask& task = base_->world.tasks.at(seat);
    for (const ModelReport& report :
         base_->world.workers[static_cast<size_t>(task.worker)].reports) {
      if (report.seat == seat && report.kind == ModelReport::kFinished) return report.code == "OK";
    }
    const auto known = base_->coordinator->tasks.find(seat);
    return known != base_->coordinator->tasks.end() && known->second.code() == "OK";
  }

  void ExpandGroups() {
    std::set<std::string> met;
    std::set<std::pair<uint64_t, int>> steps;
    for (const auto& [seat, task] : base_->world.tasks) {
      if (!task.alive() || task.hung) continue;
      if (task.phase == ModelTask::kTraining && task.place < options_.steps) {
        steps.emplace(task.epoch, task.place);
      }
      if (!HasGroup(task) || !Reachable(*task.newest)) continue;
      const ModelOrder group = *task.newest;
      const bool all =
          std::all_of(group.members.begin(), group.members.end(), [&](const std::string& address) {
            const ModelTask& other = base_->world.tasks.at(std::stoi(address));
            return HasGroup(other) && !other.hung && !other.stop && !other.leave &&
                   other.newest->epoch == group.epoch;
          });
      if (!all || !met.insert(std::to_string(group.epoch)).second) continue;
      Try(fmt::format("epoch {} meets", group.epoch), false, [&] { Assemble(group); });
    }
    for (const auto& [epoch, step] : steps) {
      if (!CanReduce(epoch, step)) continue;
      Try(fmt::format("epoch {} reduces step {}", epoch, step), false,
          [&, epoch = epoch, step = step] { Reduce(epoch, step); });
    }
  }

  const ModelOptions options_;
  ModelResult result_;
  Node node_;                    // the one that is being made
  const Node* base_ = nullptr;   // the one that it is made of
  const World* view_ = nullptr;  // of the one that is asked about
  int current_ = -1;
  std::string action_;
  int usual_ = 0;
  std::unordered_map<std::string, Outcome> outcomes_;
  std::unordered_map<size_t, int> ids_;
  std::vector<std::pair<int, std::string>> parents_;
  std::vector<std::vector<Edge>> edges_;
  std::vector<bool> goal_;
  std::vector<std::unique_ptr<Node>> frontier_;
};

}  // namespace

ModelResult ExploreProtocol(const ModelOptions& options) {
  return Explorer(options).Run();
}

}  // namespace lepton::scheduler
