// A graph made ready for concrete input shapes: nodes simplified and grouped into steps, a kernel
// for each, and a place in one arena for every value that somebody reads; on the host, plans of one
// executor share theirs.
//
//   Simplify (passes/simplify.h)        equal values are computed once
//   ScheduleLiveNodes (live_nodes.h)    what nobody needs goes; what depends on parameters only is
//                                       hoisted into the prologue
//   views                               reshapes become other views of the same memory
//   FuseGroups (fusion.h)               pointwise nodes run within the step whose result they read
//   kernels                             the first of the list that takes the step (kernel_table.h)
//   PlanMemory (memory_plan.h)          offsets by lifetime
//
// Ownership: the graph, the kernel table and the pack cache must outlive the plan. Threads: one
// caller at a time; kernels use ThreadPool::Compute().
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "runtime/graph/arena.h"
#include "runtime/graph/device_feed.h"
#include "runtime/graph/kernel_table.h"
#include "runtime/graph/passes/fusion.h"
#include "runtime/graph/passes/memory_plan.h"
#include "runtime/tensor/buffer.h"

namespace lepton::graph {

struct PlanOptions {
  // Parameters change only between calls of Plan::ParametersChanged: kernels may keep packed copies
  // of them, which RunPrologue brings up to date.
  bool frozen_parameters = false;
  // The packed copies are made anew in each run, right before the kernel that reads them, in memory
  // that all share. The plan's pack cache must be transient too, or null.
  bool transient_packs = false;
  bool fuse = true;
  // Where the plan's memory lies and its steps are queued, of the plan's device; null: the host. It
  // must outlive the plan.
  Accelerator* accelerator = nullptr;
  // On an accelerator: the second run with the same places records the steps, and later ones queue
  // them as one piece of work.
  bool record = true;
};

class Plan {
 public:
  // kInvalidArgument for shapes that do not fit the graph; kInternal for a missing kernel;
  // kResourceExhausted when the accelerator is full. `packs` may be null. `arena`, on the host, is
  // shared with other plans; null: the plan has its own.
  static Result<std::unique_ptr<Plan>> Make(const Graph& graph, const KernelTable& kernels,
                                            const Device& device,
                                            std::span<const TensorType> inputs,
                                            const PlanOptions& options = {},
                                            PackCache* packs = nullptr,
                                            std::shared_ptr<Arena> arena = nullptr);

  // The memory of an input, a parameter or an external output, of the value's type and on the
  // plan's device; it must stay valid until the last run that reads it or the next Bind of the
  // value.
  void Bind(ValueId value, void* data);
  // An input's data in the host's memory. On the host this is Bind; for an accelerator it is copied
  // to a place of the plan's own, and may change on return. kResourceExhausted.
  Status Feed(ValueId input, void* data);
  // A bound value or an output, to the host's memory; waits for the runs before it. The errors of
  // these show here.
  Status Fetch(ValueId value, void* data);
  // Computes what depends on parameters only, and packs frozen ones. Call after they changed,
  // before Run.
  void RunPrologue(const RunState& state);
  // The same, where `version`, which is not 0, names the parameters' state: nothing is done that
  // was done for the same version, here or by another plan of the same pack cache. `bind` (may be
  // empty) is called before each piece of work that reads parameters, with those, and binds them;
  // none is read for longer than until the next call, but for run_parameters(), in Run.
  using BindParameters = std::function<void(std::span<const ValueId>)>;
  void RunPrologue(const RunState& state, uint64_t version, const BindParameters& bind = {});
  // The parameters that Run reads: not those that are packed, or that the prologue alone reads.
  const std::vector<ValueId>& run_parameters() const { return run_parameters_; }
  // Whether Run takes such a parameter of f32 in halves too, and that place of them, in bf16 or
  // f16, aligned to 2 bytes; until the next Bind of it.
  bool Widens(ValueId parameter) const { return widened_[parameter]; }
  void BindHalves(ValueId parameter, void* data, DType dtype);
  // `ready` (may be empty) is called on the caller's thread with each external or passing output as
  // soon as the caller may do with it what it likes: behind the last step that writes or reads it
  // and before the next one. Known when the plan is made, so the order follows from the shapes.
  // Outputs that follow from parameters alone are not named. On an accelerator the run is queued,
  // and `ready` is not called: Fetch, or the accelerator's Synchronize, waits for it.
  using OutputReady = std::function<void(ValueId)>;
  void Run(const RunState& state, const OutputReady& ready = {});
  // On the host, for parameters that are in memory only while somebody reads them: `needed` is
  // called before each step that reads some, with those, and binds them. What depends on parameters
  // only is computed in each run too: no RunPrologue. Needs transient packs. False from `needed`
  // ends the run: what it gives is then of no use.
  using ParametersNeeded = std::function<bool(std::span<const ValueId>)>;
  void RunVisiting(const RunState& state, const ParametersNeeded& needed,
                   const OutputReady& ready = {});
  // The same calls in the same order, and nothing is computed.
  void Walk(const ParametersNeeded& needed, const OutputReady& ready = {}) const;

  // Any bound value, or an output after a run, until a plan runs that shares the arena. A value
  // within a fused step has no memory: data is null.
  const TensorView& view(ValueId value) const { return views_[value]; }
  const MemoryPlan& memory() const { return memory_; }
  // Of memory that is this plan's alone: what stays from run to run, and all on an accelerator.
  size_t own_bytes() const { return own_.size(); }
  // Whether the last run was queued as recorded work.
  bool replays() const { return recorded_ != nullptr; }
  bool has_prologue() const { return prologue_steps_ > 0; }
  // "matmul+bias_add+gelu: gemm" per step, for diagnostics and tests.
  std::vector<std::string> KernelNames() const;

 private:
  friend class PlanBuilder;
  struct Step {
    NodeId anchor = 0;
    std::vector<const Node*> nodes;  // the anchor and its followers
    std::unique_ptr<Kernel> kernel;
    std::string_view implementation;
    bool prepared = false;            // its kernel packs an input
    int widens = -1;                  // KernelEntry::widens
    std::vector<ValueId> parameters;  // that it reads
    std::vector<ValueId>
        final_outputs;  // external and passing ones that no step behind this one touches
    void* workspace = nullptr;
  };
  Plan() = default;
  void TakeArena();
  void Place(char* own, char* shared);
  void PreparePrologue(const RunState& state, uint64_t version, const BindParameters& bind);
  void Prepare(const Step& step, const RunState& state, uint64_t version);
  void RunSteps(size_t first, size_t last, const RunState& state, const OutputReady& ready = {},
                const ParametersNeeded& needed = {});
  void RunQueued(const RunState& state);
  Status Record(const RunState& state);
  void RunProfiled(const RunState& state, const OutputReady& ready);
  static std::string NameOf(const Step& step);

  std::deque<Node> nodes_;         // as the graph's, simplified
  std::vector<ValueId> roots_;     // by value: whose memory it is
  std::vector<TensorView> views_;  // by value
  // What Prepare sees: views_, but with the parameter in place of its rounded copy where the copy
  // is not made.
  std::vector<TensorView> frozen_views_;
  std::vector<ValueId> frozen_sources_;  // by value: the parameter that stands for it in Prepare
  std::vector<std::vector<size_t>> in_memory_of_;  // by value: those whose root it is
  std::vector<std::vector<size_t>> stands_for_;  // by parameter: those in place of which it stands
  std::vector<Step> steps_;
  size_t prologue_steps_ = 0;
  std::vector<ValueId> run_parameters_;
  std::vector<bool> widened_;  // by value
  MemoryPlan memory_;
  // Offsets below memory_.kept_bytes lie in own_, the others in arena_; on an accelerator all in
  // own_.
  Buffer own_;
  std::shared_ptr<Arena> arena_;  // on the host
  // Where the views take arena_ to be; none: nowhere yet.
  std::optional<const char*> placed_;
  uint64_t version_ = 0;  // of the parameters that the prologue ran for
  bool transient_packs_ = false;

  // On an accelerator.
  Accelerator* accelerator_ = nullptr;
  std::map<ValueId, DeviceFeed> feeds_;    // by input
  std::unique_ptr<DeviceFeed> run_state_;  // DeviceRunState
  bool records_ = false;
  bool ran_ = false;  // since something was bound elsewhere
  std::unique_ptr<RecordedWork> recorded_;
};

}  // namespace lepton::graph
