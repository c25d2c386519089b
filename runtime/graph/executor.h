// Runs a graph: chooses kernels, places values in an arena and calls the kernels in order. A Plan
// is a graph made ready for concrete input shapes; the Executor keeps the plans that were used
// last. Ownership: the graph and the kernel table must outlive the executor; a Plan belongs to its
// executor. Threads: one caller at a time; kernels use ThreadPool::Compute().
#pragma once

#include <list>
#include <memory>
#include <string>

#include "runtime/graph/kernel_table.h"
#include "runtime/graph/passes/memory_plan.h"
#include "runtime/tensor/buffer.h"

namespace lepton::graph {

struct PlanOptions {
  // Parameters change rarely, as in serving: kernels may keep packed copies of them. What they keep
  // is brought up to date by RunPrologue.
  bool frozen_parameters = false;
};

class Plan {
 public:
  // kInvalidArgument for shapes that do not fit the graph; kInternal for a missing kernel.
  static Result<std::unique_ptr<Plan>> Make(const Graph& graph, const KernelTable& kernels,
                                            const Device& device,
                                            std::span<const TensorType> inputs,
                                            const PlanOptions& options = {});

  // The memory of an input, a parameter or an external output, of the value's type; it must stay
  // valid until the last run or the next Bind of the value.
  void Bind(ValueId value, void* data);
  // Computes what depends on parameters only, and packs frozen ones. Call after they changed,
  // before Run.
  void RunPrologue(const RunState& state);
  void Run(const RunState& state);

  // Any bound value, or an output after a run.
  const TensorView& view(ValueId value) const { return views_[value]; }
  const MemoryPlan& memory() const { return memory_; }
  bool has_prologue() const { return prologue_steps_ > 0; }
  // "matmul: onednn" per step, for diagnostics and tests.
  std::vector<std::string> KernelNames() const;

 private:
  struct Step {
    const Node* node;
    std::unique_ptr<Kernel> kernel;
    std::string_view implementation;
    bool prepared = false;  // has frozen inputs
  };
  Plan() = default;
  Status AddStep(const Node& node, const KernelTable& kernels, const Device& device,
                 std::vector<bool> frozen);

  std::vector<TensorView> views_;  // by value
  std::vector<Step> steps_;
  size_t prologue_steps_ = 0;
  MemoryPlan memory_;
  Buffer arena_;
};

class Executor {
 public:
  static constexpr size_t kMaxPlans = 8;

  Executor(const Graph& graph, const KernelTable& kernels, Device device = {},
           PlanOptions options = {})
      : graph_(graph), kernels_(kernels), device_(device), options_(options) {}

  // The plan for these input types: from the cache, or made now. Valid until kMaxPlans other shapes
  // were asked for. `*made` (may be null) says whether it is new and so has nothing bound yet.
  Result<Plan*> PlanFor(std::span<const TensorType> inputs, bool* made = nullptr);
  Result<Plan*> PlanForBatch(int64_t batch, bool* made = nullptr);

 private:
  struct Cached {
    std::vector<TensorType> inputs;
    std::unique_ptr<Plan> plan;
  };
  const Graph& graph_;
  const KernelTable& kernels_;
  const Device device_;
  const PlanOptions options_;
  std::list<Cached> plans_;  // the last used first
};

}  // namespace lepton::graph
