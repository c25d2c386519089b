// Operators along axes.
#include <cmath>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_reduction {

// The version from which a reduction's axes are an input.
int64_t AxesAreInput(bool sum) {
  return sum ? 13 : 18;
}

template <typename Function>
void Reduction(Call& c, bool sum, const Function& function) {
  const Id x = c.whole(0);
  Groups groups = c.groups(0);
  bool given = false;
  const Ints axes = c.Axes(AxesAreInput(sum), 1, static_cast<int>(groups.size()), &given);
  if (!given && c.Int("noop_with_empty_axes", 0) != 0) return c.Set(0, x, std::move(groups));
  Ints own;
  for (const int64_t axis : axes) own.push_back(c.OwnAxis(0, axis));
  const Id y = function(c.b, x, own);
  if (c.Int("keepdims", 1) != 0) return c.Set(0, y, std::move(groups));
  for (const int64_t axis : axes) groups[axis] = 0;
  std::erase(groups, 0);
  c.Set(0, c.b.Squeeze(y, own), std::move(groups));
}

void Sum(Call& c) {
  Reduction(c, true, [](Builder& b, Id x, const Ints& a) { return b.Reduce("sum", x, a); });
}
void Mean(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) { return b.Reduce("mean", x, a); });
}
void Max(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) { return b.Reduce("max", x, a); });
}
void Min(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) { return b.Reduce("min", x, a); });
}
void Prod(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) { return b.Reduce("prod", x, a); });
}
// f32 by parts that have gradients; others at once.
Id SumOfSquares(Builder& b, Id x, const Ints& axes) {
  return b.dtype(x) == DType::kF32 ? b.Reduce("sum", b.Mul(x, x), axes)
                                   : b.Reduce("sum_square", x, axes);
}
void L1(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) {
    return b.dtype(x) == DType::kF32 ? b.Reduce("sum", b.Unary("abs", x), a) : b.Reduce("l1", x, a);
  });
}
void L2(Call& c) {
  Reduction(c, false,
            [](Builder& b, Id x, const Ints& a) { return b.Unary("sqrt", SumOfSquares(b, x, a)); });
}
void SumSquare(Call& c) {
  Reduction(c, false, SumOfSquares);
}
void LogSum(Call& c) {
  Reduction(c, false,
            [](Builder& b, Id x, const Ints& a) { return b.Unary("log", b.Reduce("sum", x, a)); });
}
void LogSumExp(Call& c) {
  Reduction(c, false, [](Builder& b, Id x, const Ints& a) {
    const Id most = b.Reduce("max", x, a);
    return b.Add(most, b.Unary("log", b.Reduce("sum", b.Unary("exp", b.Sub(x, most)), a)));
  });
}

void ArgExtreme(Call& c, bool largest) {
  const Id x = c.in(0);
  const int64_t axis = c.b.Axis(c.Int("axis", 0), c.b.rank(x));
  const Id y = c.b.Node(
      "arg_extreme", {x},
      {{"axis", axis}, {"largest", int64_t{largest}}, {"last", c.Int("select_last_index", 0)}});
  c.Set(0, c.Int("keepdims", 1) != 0 ? y : c.b.Squeeze(y, {axis}));
}
void ArgMax(Call& c) {
  ArgExtreme(c, true);
}
void ArgMin(Call& c) {
  ArgExtreme(c, false);
}

void CumSum(Call& c) {
  const Ints axis = c.Integers(1, "axis");
  if (axis.size() != 1) FailInvalid("axis: must be one number");
  c.Set(0, c.b.Node("cumulative_sum", {c.in(0)},
                    {{"axis", axis[0]},
                     {"exclusive", c.Int("exclusive", 0)},
                     {"reverse", c.Int("reverse", 0)}}));
}

void TopK(Call& c) {
  const Ints k = c.version() < 10 ? Ints{c.Int("k", 0)} : c.Integers(1, "k");
  if (k.size() != 1) FailInvalid("k: must be one number");
  const auto outputs =
      c.b.Nodes("top_k", {c.in(0)},
                {{"axis", c.Int("axis", -1)}, {"k", k[0]}, {"largest", c.Int("largest", 1)}});
  c.Set(0, outputs[0]);
  c.Set(1, outputs[1]);
}

constexpr std::string_view kFloats = "f16, bf16, f32, f64";
constexpr std::string_view kNumbers = "all numbers";
constexpr Rule kRules[] = {
    {"ArgMax", 1, kNumbers, ArgMax},
    {"ArgMin", 1, kNumbers, ArgMin},
    {"CumSum", 11, kNumbers, CumSum},
    {"ReduceL1", 1, kNumbers, L1},
    {"ReduceL2", 1, kFloats, L2},
    {"ReduceLogSum", 1, kFloats, LogSum},
    {"ReduceLogSumExp", 1, kFloats, LogSumExp},
    {"ReduceMax", 1, kNumbers, Max},
    {"ReduceMean", 1, kNumbers, Mean},
    {"ReduceMin", 1, kNumbers, Min},
    {"ReduceProd", 1, kNumbers, Prod},
    {"ReduceSum", 1, kNumbers, Sum},
    {"ReduceSumSquare", 1, kNumbers, SumSquare},
    {"TopK", 1, kNumbers, TopK},
};

}  // namespace rules_reduction

std::span<const Rule> ReductionRules() {
  return rules_reduction::kRules;
}

}  // namespace lepton::onnx
