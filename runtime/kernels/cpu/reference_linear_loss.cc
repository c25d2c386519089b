#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

float Rounded(float value, DType dtype) {
  return dtype == DType::kBF16 ? BF16::ToFloat(BF16::FromFloat(value)) : value;
}

float Number(const TensorView& view, int64_t index) {
  return view.type.dtype == DType::kBF16 ? BF16::ToFloat(view.as<BF16>()[index])
                                         : view.as<float>()[index];
}

// The head of a model, as the product takes it.
struct Head {
  explicit Head(const KernelContext& context)
      : hidden(context.input(0)),
        weight(context.input(1)),
        turned(context.attributes().Int("transpose_b") != 0),
        rows(hidden.shape().rows()),
        inner(hidden.shape().back()),
        classes(weight.shape()[turned ? 0 : 1]) {}

  int64_t WeightIndex(int64_t k, int64_t c) const {
    return turned ? c * inner + k : k * classes + c;
  }
  float Weight(int64_t k, int64_t c) const {
    return Rounded(Number(weight, WeightIndex(k, c)), hidden.type.dtype);
  }
  std::vector<float> Logits(int64_t row) const {
    std::vector<float> logits(classes);
    for (int64_t c = 0; c < classes; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < inner; ++k)
        sum += double{Number(hidden, row * inner + k)} * Weight(k, c);
      logits[c] = static_cast<float>(sum);
    }
    return logits;
  }

  const TensorView& hidden;
  const TensorView& weight;
  const bool turned;
  const int64_t rows, inner, classes;
};

}  // namespace

void LinearCrossEntropy(const KernelContext& context) {
  const Head head(context);
  for (int64_t row = 0; row < head.rows; ++row) {
    const int32_t label = context.input(2).as<int32_t>()[row];
    double loss = 0, top = 0, sum = 1;
    if (label >= 0) {
      const std::vector<float> logits = head.Logits(row);
      top = *std::max_element(logits.begin(), logits.end());
      sum = 0;
      for (const float z : logits) sum += std::exp(z - top);
      loss = std::log(sum) - (logits[label] - top);
    }
    context.output(0).as<float>()[row] = static_cast<float>(loss);
    context.output(1).as<float>()[row] = static_cast<float>(top);
    context.output(2).as<float>()[row] = static_cast<float>(sum);
  }
}

void LinearCrossEntropyGrad(const KernelContext& context) {
  const Head head(context);
  float* dhidden = context.output(0).as<float>();
  std::vector<double> dweight(head.inner * head.classes);
  for (int64_t row = 0; row < head.rows; ++row) {
    const int32_t label = context.input(2).as<int32_t>()[row];
    const double top = context.input(3).as<float>()[row];
    const double sum = context.input(4).as<float>()[row];
    const double scale = label < 0 ? 0 : context.input(5).as<float>()[row];
    std::vector<float> slopes = head.Logits(row);
    for (int64_t c = 0; c < head.classes; ++c) {
      const double share = scale == 0 ? 0 : std::exp(slopes[c] - top) / sum - (c == label ? 1 : 0);
      slopes[c] = Rounded(static_cast<float>(scale * share), head.hidden.type.dtype);
    }
    for (int64_t k = 0; k < head.inner; ++k) {
      double total = 0;
      for (int64_t c = 0; c < head.classes; ++c) {
        total += double{slopes[c]} * head.Weight(k, c);
        dweight[head.WeightIndex(k, c)] +=
            double{slopes[c]} * Number(head.hidden, row * head.inner + k);
      }
      dhidden[row * head.inner + k] = static_cast<float>(total);
    }
  }
  std::copy(dweight.begin(), dweight.end(), context.output(1).as<float>());
}

}  // namespace lepton::kernels::reference
