// What ops share: their name, and checks of inputs that say which input is wrong.
// Threads: stateless.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::ops {

using graph::Attributes;
using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::ValueId;
using Types = std::vector<TensorType>;
using Gradients = std::vector<ValueId>;

class DifferentiableOp : public graph::Op {
 public:
  explicit DifferentiableOp(std::string_view name) : name_(name) {}
  std::string_view name() const final { return name_; }
  bool differentiable() const final { return true; }

 private:
  const std::string_view name_;
};

// Element by element, as graph::Op::pointwise says.
class PointwiseOp : public DifferentiableOp {
 public:
  using DifferentiableOp::DifferentiableOp;
  bool pointwise() const final { return true; }
};

// Integer-valued ops, constants, and the gradient ops themselves.
class OpWithoutGradient : public graph::Op {
 public:
  explicit OpWithoutGradient(std::string_view name) : name_(name) {}
  std::string_view name() const final { return name_; }
  bool differentiable() const final { return false; }
  Result<Gradients> Gradient(Graph&, const Node&, std::span<const ValueId>) const final {
    return Internal("no gradient");  // autodiff asks differentiable() first
  }

 private:
  const std::string_view name_;
};

// The gradient op of an element-wise one: f(saved, gradient) of one shape, and of the type of
// `saved`; the gradient may be f32 where that is bf16.
class ElementwiseGradOp final : public OpWithoutGradient {
 public:
  using OpWithoutGradient::OpWithoutGradient;
  bool pointwise() const override { return true; }
  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override;
};

// kInvalidArgument: "input 1 is f32[3, 4]; must be f32[4]".
Status ExpectInputs(std::span<const TensorType> inputs, size_t count);
Status ExpectType(std::span<const TensorType> inputs, size_t index, const TensorType& wanted);
Status ExpectRank(std::span<const TensorType> inputs, size_t index, DType dtype, int rank);
// Rows of the last axis: any rank from 2 on.
Status ExpectRows(std::span<const TensorType> inputs, size_t index, DType dtype);
Status ExpectDType(std::span<const TensorType> inputs, size_t index, DType dtype);
Status ExpectFloat(std::span<const TensorType> inputs, size_t index);  // f32 or bf16

// The value in another floating type: itself, what it was widened from, or a cast of it.
Result<ValueId> As(Graph& graph, ValueId value, DType dtype);
// What an f32 value was widened from, or itself: for kernels that read both.
ValueId Unwidened(const Graph& graph, ValueId value);

}  // namespace lepton::ops
