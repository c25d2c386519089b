// Makes a plan; plan.h names the stages. Threads: one caller. Internal to this folder.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "runtime/graph/passes/loss_pieces.h"
#include "runtime/graph/plan.h"

namespace lepton::graph {

class PlanBuilder {
 public:
  PlanBuilder(const Graph& graph, const KernelTable& kernels, const Device& device,
              const PlanOptions& options, PackCache* packs, std::shared_ptr<Arena> arena)
      : given_(graph),
        kernels_(kernels),
        device_(options.accelerator == nullptr ? device : options.accelerator->device()),
        options_(options),
        packs_(packs),
        arena_(std::move(arena)) {}

  Result<std::unique_ptr<Plan>> Build(std::span<const TensorType> inputs);

 private:
  struct StepTypes {
    std::vector<TensorType> inputs, outputs;
  };
  const Graph& graph() const { return pieces_ ? pieces_->graph : given_; }
  const Node& node(NodeId id) const { return plan_->nodes_[id]; }
  StepTypes TypesOf(const Node& node) const;
  KernelRequest RequestOf(const Node& node, const StepTypes& types) const;
  std::vector<FrozenInput> FrozenInputs(const Node& node) const;
  Status CutLosses(std::span<const TensorType> inputs);
  void FindConstants(const Schedule& schedule);
  void FindViews(Schedule& schedule);
  void SkipRoundedCopies(Schedule& schedule);
  std::vector<Group> GroupsOf(const std::vector<NodeId>& order) const;
  void FindReads(const std::vector<Group>& groups);
  Status AddStep(const Group& group, bool prologue);
  std::vector<ValueId> ParametersOf(const Plan::Step& step) const;
  void FindRunParameters();
  StepUse UseOf(const Plan::Step& step) const;
  Status PlaceValues();
  void FindFinalOutputs();

  const Graph& given_;
  const KernelTable& kernels_;
  const Device device_;
  const PlanOptions options_;
  PackCache* const packs_;
  const std::shared_ptr<Arena> arena_;  // null: the plan makes its own

  std::unique_ptr<Plan> plan_;
  std::optional<LossPieces> pieces_;  // the graph, where it had to be changed
  std::vector<TensorType> types_;     // by value
  std::vector<bool> constant_;        // by value: follows from parameters alone
  std::vector<bool> output_;          // by value: of the graph
  std::vector<int> reads_;  // by value: steps that read it from memory, and the graph's outputs
  // By node: an input that Prepare alone reads, from the parameter that it is a rounded copy of.
  std::vector<int> packed_input_;
};

}  // namespace lepton::graph
