// What architectures are written with: layers that add their nodes to a graph and declare their
// parameters, in one order that fixes the layout of the flat weight buffer: trained parameters in
// the order of their declaration, then statistics.
// Threads: one builder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/nn/initializers.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {

class ModelBuilder {
 public:
  // `training`: dropout is built in. `precision`: "f32", "bf16" for bf16 GEMM inputs, or, when not
  // training, "int8": products and convolutions with weights in 8 bits, all else as with bf16.
  // `tensor`: of the ranks over which layers that know of it are divided.
  ModelBuilder(graph::Graph& graph, bool training, std::string precision, TensorPlace tensor = {})
      : graph_(graph), training_(training), precision_(std::move(precision)), tensor_(tensor) {}

  graph::Graph& graph() { return graph_; }
  bool training() const { return training_; }
  const TensorPlace& tensor() const { return tensor_; }

  // What is declared from here on belongs to the head.
  void BeginHead() { in_head_ = true; }
  graph::ValueId Parameter(const std::string& name, const Shape& shape, const FirstValues& first);
  // This rank's part of a parameter of `whole`'s extents, cut along an axis whose sections (their
  // sum is the extent) are multiples of the number of ranks. The whole one if there is one rank.
  graph::ValueId CutParameter(const std::string& name, const Shape& whole, int axis,
                              std::vector<int64_t> sections, const FirstValues& first);
  // A running statistic (training_program.h). What a batch says of it comes with SetStatistic.
  graph::ValueId Statistic(const std::string& name, const Shape& shape, const FirstValues& first,
                           double momentum);
  void SetStatistic(graph::ValueId statistic, graph::ValueId of_batch);

  // How a product is divided over ranks: by its outputs, of which each rank then has some, or by
  // its inputs, of which each rank has some and all get the sum.
  enum class Cut : uint8_t { kNone, kOut, kIn };
  struct LinearShape {
    int64_t in = 0;  // of the undivided product, as `out`
    int64_t out = 0;
    bool bias = true;
    bool transposed = false;  // the weight is [out, in]
    FirstValues first;        // of the weight; biases are 0
    Cut cut = Cut::kNone;
    std::vector<int64_t> sections = {};  // kOut: parts of `out` that are divided each; none: `out`
  };
  // x [.., in] -> x * weight [in, out] + bias [out]; parameters <name>.weight and <name>.bias.
  // Divided by its inputs, the bias is every rank's and added to the sum.
  Result<graph::ValueId> Linear(const std::string& name, graph::ValueId x,
                                const LinearShape& shape);
  // x [.., in] * weight, for a weight that is used in several places.
  Result<graph::ValueId> Matmul(const std::string& name, graph::ValueId x, graph::ValueId weight,
                                bool transposed);
  // x [n, c, h, w] with weight [o, c, kh, kw]: conv2d of the precision; attributes are conv2d's.
  Result<graph::ValueId> Conv2d(const std::string& name, graph::ValueId x, graph::ValueId weight,
                                graph::Attributes attributes);
  // With precision bf16 or int8 the value rounded to bf16, else itself: for what feeds products and
  // activations and is worth keeping in half the memory. Sums, norms and the residual stream stay
  // f32.
  Result<graph::ValueId> Narrow(graph::ValueId value);
  // What all ranks have, where a part of the graph begins in which each does its own share: its
  // gradient is the sum of theirs. The value itself if there is one rank.
  Result<graph::ValueId> IntoShares(graph::ValueId value);
  // The value as f32, for what takes nothing else.
  Result<graph::ValueId> Widen(graph::ValueId value);
  // Parameters <name>.weight (ones) and <name>.bias (zeros).
  Result<graph::ValueId> LayerNorm(const std::string& name, graph::ValueId x, int64_t width,
                                   double epsilon = 1e-5);
  // relu, gelu (exact), gelu_tanh, silu, tanh or sigmoid; kInvalidArgument otherwise.
  Result<graph::ValueId> Activation(std::string_view kind, const std::string& name,
                                    graph::ValueId x);
  // Nothing when not training or rate is 0. Each call has its own stream of random numbers.
  Result<graph::ValueId> Dropout(const std::string& name, graph::ValueId x, double rate);

  struct Declared {
    ParameterView view;
    graph::ValueId value = graph::kNoValue;
    FirstValues first;
    graph::ValueId of_batch = graph::kNoValue;  // statistics
  };
  // After the last layer: puts the statistics behind the trained parameters.
  void Place();
  // Offsets hold once placed.
  const std::vector<Declared>& parameters() const { return parameters_; }
  int64_t parameter_elements() const { return trained_elements_ + statistic_elements_; }
  // They come first in the buffer.
  int64_t trained_elements() const { return trained_elements_; }

 private:
  graph::Graph& graph_;
  const bool training_;
  const std::string precision_;
  const TensorPlace tensor_;
  std::vector<Declared> parameters_;
  int64_t trained_elements_ = 0;
  int64_t statistic_elements_ = 0;
  int64_t dropouts_ = 0;
  bool in_head_ = false;
};

// First values of every parameter.
void InitializeParameters(const std::vector<ModelBuilder::Declared>& parameters, uint64_t seed,
                          std::span<float> weights);
std::vector<ParameterView> ParameterViews(const std::vector<ModelBuilder::Declared>& parameters);

}  // namespace lepton::nn
