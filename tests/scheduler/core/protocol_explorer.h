// The search of protocol_model.h: nodes are (world, coordinator), edges are all that may happen.
//   protocol_search.cc   the nodes, what must hold, dead ends
//   protocol_coordinator.cc   what inputs make of the coordinator
//   protocol_agents.cc   what agents and their connections do
//   protocol_tasks.cc    what tasks do, alone and together
//   protocol_joins.cc    how joiners get the state beside the steps
//   protocol_slices.cc   the same of a state in slices: who holds it, hand-overs, checkpoints
// Threads: one.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/scheduler/core/protocol_coordinator.h"
#include "tests/scheduler/core/protocol_model.h"
#include "tests/scheduler/core/protocol_world.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler::model {

struct Node {
  World world;
  ImagePtr coordinator, before;  // before its newest input
};

struct Edge {
  int to = 0;
  bool fault = false;
};

inline constexpr char kDeviceFailed[] = "DEVICE_FAILED";
inline constexpr char kCutFault[] = "fault: a cut between ";

class Explorer {
 public:
  explicit Explorer(const ModelOptions& options) : options_(options) {}
  ModelResult Run();

 private:
  // ---- nodes ----
  void Meet(int from, std::string how, bool fault);  // node_
  bool IsGoal(const Node& node) const {
    return options_.slices ? node.coordinator->gone : node.coordinator->over;
  }
  bool IsGood(const Node& node) const {
    return IsGoal(node) && (!options_.must_succeed || node.coordinator->job_state == "SUCCEEDED");
  }
  void Violation(const std::string& what);
  // From every state the job comes to its end without further faults.
  void FindDeadEnds();
  // What may happen from a state on, without faults: one way as far as it goes.
  std::string GoOn(int id) const;
  // ---- the coordinator ----
  // What an input makes of a coordinator is worked out once, whatever the world around it is.
  using Orders = std::vector<std::pair<size_t, OrderPtr>>;  // and the workers that they are for
  struct Outcome {
    ImagePtr image;
    Orders orders;
  };
  // What says that time passes is no single input.
  using Inputs = std::function<void(Reactor& reactor, int64_t* now, Recorder& out)>;
  void Feed(const std::string& what, const Inputs& inputs, const std::string& greets = "");
  template <typename Body>
  void Tell(const std::string& what, const Body& body, const std::string& greets = "") {
    Feed(
        what,
        [&](Reactor& reactor, int64_t* now, Recorder& out) {
          reactor.On(Input{*now, 1, body}, out);
        },
        greets);
  }
  Outcome Work(const Inputs& inputs, const std::string& greets);
  // One image for each key.
  ImagePtr Known(std::shared_ptr<Image> image);
  // The reactor thinks that it was started anew: the workers that had come before are here still.
  void Greet(Reactor& reactor, const std::set<std::string>& greeted, int64_t now, Recorder& out);
  static Orders OrdersOf(const Recorder& out);
  void Send(const Orders& orders);
  // Time passes, until something comes of it; those that say so store what tasks left, or compute.
  void Pass(bool early);
  void CheckAwaited(const Image& before, const Image& after);
  // ---- what must hold ----
  void CheckGroup(const OrderPtr& sent);
  // A step that an older epoch has committed is where a newer one begins, at the latest; and no
  // older epoch goes on beside it.
  void OnReduced(uint64_t number, int step);
  void OnApplied(uint64_t number, int step);
  // ---- the agents ----
  // Nothing comes of it now, nor will later.
  bool Ignores(const ModelOrder& order) const;
  void Arrive(int worker);
  void Hello(int worker);
  void Report(int worker);
  void Say(int seat, ModelReport report);
  void End(int seat, const std::string& code, int signal = 0);
  // ---- the tasks, as worker/gang_membership.cc and worker/train/elastic_train.cc ----
  void Deliver(const OrderPtr& sent, int worker);
  void Listen(int seat, uint64_t left, std::set<int> cannot = {});
  // Those of `seats` on workers that this one's cannot reach.
  std::set<int> BehindCuts(int seat, const std::vector<int>& seats) const;
  // All of them can reach each other.
  bool Whole(const std::vector<int>& seats) const;
  bool HasGroup(const ModelTask& task) const;
  // It meets the others though it was told to leave.
  bool HandsOver(const ModelTask& task) const;
  // ---- joins ----
  // Of a group that meets at this place; else all that lack the state have it at once.
  bool JoinsBesideSteps(const std::vector<int>& members, int place) const;
  // That from which a joiner gets its pieces is in the group still.
  bool SourceIsThere(int seat) const;
  void TakePiece(ModelTask& task);
  bool CanCutOver(uint64_t epoch) const;
  void CutOver(uint64_t epoch);
  // Behind a cut-over, since somebody leaves.
  bool Parts(const ModelTask& task) const;
  void LeaveStream(ModelTask& task) const;
  // What it takes part with is the state of the step before.
  void CheckState(int seat, int step);
  // Nobody in this epoch has the state: then one that had it died.
  void CheckDeaths(uint64_t epoch);
  // ---- slices ----
  // False when a slice is gone; then all that met have ended.
  bool TakeSlices(const std::vector<int>& members, int place);
  // The members are to leave, or some of them: they part as they meet.
  void PartAsTheyMeet(const std::vector<int>& members);
  bool CanHandOver(uint64_t epoch) const;
  void HandOver(uint64_t epoch);
  void CheckNothingLost(const Node& node);
  // The seats of an order's group that are not where it expects them: dead, or listening anew.
  bool Reachable(const ModelOrder& group) const;
  void Assemble(const ModelOrder& group);
  const std::vector<int>& MembersOf(uint64_t epoch) const;
  // All members are in it, at the same step.
  bool CanReduce(uint64_t epoch, int step) const;
  void Reduce(uint64_t epoch, int step);
  bool Leads(int seat, uint64_t epoch) const;
  void ApplyStep(int seat);
  // A member is dead, or has left: what the watcher sees.
  bool PeerIsGone(int seat) const;
  // ---- all that may happen in a state ----
  template <typename Do>
  void Try(const std::string& how, bool fault, Do act, int World::*left = &World::faults) {
    if (!result_.violation.empty() || (fault && base_->world.*left == 0)) return;
    if (fault && options_.links_only && how.rfind(kCutFault, 0) != 0) {
      return;
    }
    const bool death = how.rfind("fault: seat", 0) == 0 &&
                       (how.find("is killed") != how.npos || how.find("GPU") != how.npos);
    if (fault && options_.deaths_only && left == &World::faults && !death) return;
    node_ = *base_;
    action_ = how;
    ended_ = false;
    if (fault) --(node_.world.*left);
    view_ = &node_.world;
    try {
      act();
    } catch (const std::exception& error) {
      Violation(std::string("exception: ") + error.what());
    }
    view_ = &base_->world;
    if (!result_.violation.empty()) return;
    Meet(current_, how, fault);
    if (!fault) ++usual_;
    if (!ended_ || in_two_steps_ || base_->world.uploads == 0) return;
    in_two_steps_ = true;
    Try(how + ", and something that it left is stored first", fault, act, left);
    in_two_steps_ = false;
  }
  void Expand(int id);
  void KillCoordinator();
  void ExpandWorker(int w);
  void ExpandTask(int seat, const ModelTask& task);
  // Its group is over, as it has heard: until it leaves it may compute for long.
  static bool IsTold(const ModelTask& task);
  // The seat's last word is that it is done, said or about to be.
  bool Ended(int seat) const;
  void ExpandGroups();
  const ModelOptions options_;
  ModelResult result_;
  Node node_;                    // the one that is being made
  const Node* base_ = nullptr;   // the one that it is made of
  const World* view_ = nullptr;  // of the one that is asked about
  int current_ = -1;
  std::string action_;
  int usual_ = 0;  // things that may happen without a fault
  int slow_ = 0;   // of them: they may take long
  bool ended_ = false, in_two_steps_ = false;
  std::unordered_map<std::string, ImagePtr> images_;
  std::unordered_map<std::string, Outcome> outcomes_;
  std::unordered_map<size_t, int> ids_;
  std::vector<std::pair<int, std::string>> parents_;
  std::vector<std::vector<Edge>> edges_;
  std::vector<bool> goal_;
  std::vector<std::unique_ptr<Node>> frontier_;
};

}  // namespace lepton::scheduler::model
