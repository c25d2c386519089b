// Brings a program's weights to its plans. What their runs read stays; what only kernels pack, or
// the prologue reads, is there while that is done (StoredWeights), one piece of work after the
// other. Ownership: shares the weights. Threads: one caller.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "runtime/graph/plan.h"
#include "runtime/nn/model_builder.h"
#include "runtime/nn/weights.h"

namespace lepton::nn {

class PlanWeights {
 public:
  // The parameters, declared by then, must outlive it.
  explicit PlanWeights(const std::vector<ModelBuilder::Declared>& parameters)
      : parameters_(parameters) {}

  // As the parameters, where the plans compute. Plans read them from their next Prepare on.
  void Bind(std::shared_ptr<StoredWeights> weights);
  const std::shared_ptr<StoredWeights>& bound() const { return weights_; }
  // Makes the plan ready to run with this version of the weights (Plan::RunPrologue). `made`:
  // nothing was bound to it yet.
  void Prepare(graph::Plan& plan, bool made, uint64_t version);

 private:
  struct State {
    uint64_t binding = 0, version = 0;
    bool operator==(const State&) const = default;
  };
  using Floats = std::shared_ptr<const float>;
  Floats FloatsOf(graph::ValueId value) { return weights_->Floats(parameter_of_.at(value)); }
  // Of what the plan's runs read as it is stored; else null.
  const SourceTensor* HalvesFor(const graph::Plan& plan, graph::ValueId value) const;

  const std::vector<ModelBuilder::Declared>& parameters_;
  std::shared_ptr<StoredWeights> weights_;
  std::map<graph::ValueId, size_t> parameter_of_;
  std::map<graph::ValueId, Floats> held_;  // what runs read
  uint64_t binding_ = 0;                   // how often they were bound
  std::map<const graph::Plan*, State> ready_;
};

}  // namespace lepton::nn
