// What architectures are written with: layers that add their nodes to a graph and declare their
// parameters, in one order that fixes the layout of the flat weight buffer.
// Threads: one builder.
#pragma once

#include <string>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/nn/initializers.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {

class ModelBuilder {
 public:
  // `training`: dropout is built in. `precision`: "f32", or "bf16" for bf16 GEMM inputs.
  ModelBuilder(graph::Graph& graph, bool training, std::string precision)
      : graph_(graph), training_(training), precision_(std::move(precision)) {}

  graph::Graph& graph() { return graph_; }

  // x [batch, in] -> x * weight [in, out] + bias [out]; parameters <name>.weight and <name>.bias.
  // `activation`: what follows, for the weights' first values; empty for none.
  Result<graph::ValueId> Linear(const std::string& name, graph::ValueId x, int64_t in, int64_t out,
                                const std::string& activation);
  // Parameters <name>.weight (ones) and <name>.bias (zeros).
  Result<graph::ValueId> LayerNorm(const std::string& name, graph::ValueId x, int64_t width);
  // relu, gelu (exact), tanh or sigmoid; kInvalidArgument otherwise.
  Result<graph::ValueId> Activation(const std::string& kind, const std::string& name,
                                    graph::ValueId x);
  // Nothing when not training or rate is 0. Each call has its own stream of random numbers.
  Result<graph::ValueId> Dropout(const std::string& name, graph::ValueId x, double rate);

  struct Parameter {
    ParameterView view;
    graph::ValueId value = graph::kNoValue;
    Initializer initializer = Initializer::kZeros;
  };
  const std::vector<Parameter>& parameters() const { return parameters_; }
  int64_t parameter_elements() const { return elements_; }

 private:
  graph::ValueId AddParameter(const std::string& name, const Shape& shape, Initializer initializer);
  Result<graph::ValueId> ToGemmInput(graph::ValueId value);

  graph::Graph& graph_;
  const bool training_;
  const std::string precision_;
  std::vector<Parameter> parameters_;
  int64_t elements_ = 0;
  int64_t dropouts_ = 0;
};

// First values of every parameter.
void InitializeParameters(const std::vector<ModelBuilder::Parameter>& parameters, uint64_t seed,
                          std::span<float> weights);
std::vector<ParameterView> ParameterViews(const std::vector<ModelBuilder::Parameter>& parameters);

}  // namespace lepton::nn
