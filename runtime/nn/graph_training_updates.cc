#include <cmath>

#include "runtime/base/logging.h"
#include "runtime/nn/divided_model.h"
#include "runtime/nn/graph_training.h"

namespace lepton::nn {

// Gradients that follow from parameters alone, which the plan does not name, live on behind the
// run.
void GraphTraining::NameTheRest() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].statistic && !named_[i]) ready_(i);
  }
  named_.assign(parameters_.size(), false);
}

std::span<const float> GraphTraining::gradient(size_t parameter) {
  if (options_.keeps_gradients) return TrainingProgram::gradient(parameter);
  return running_->view(gradient_values_[parameter]).span<const float>();
}

// Statistics are not final before they are weighed.
void GraphTraining::WatchGradients(GradientReady ready) {
  // A device's are final when the whole run is.
  if (!ready || options_.backend != nullptr) {
    output_ready_ = {};
    ready_ = {};
    return;
  }
  std::vector<size_t> parameter_of(graph_.values().size(), parameters_.size());
  for (size_t i = 0; i < gradient_values_.size(); ++i) {
    if (!parameters_[i].statistic) parameter_of[gradient_values_[i]] = i;
  }
  ready_ = std::move(ready);
  named_.assign(parameters_.size(), false);
  output_ready_ = [this, parameter_of = std::move(parameter_of),
                   none = parameters_.size()](graph::ValueId value) {
    if (parameter_of[value] == none) return;
    named_[parameter_of[value]] = true;
    ready_(parameter_of[value]);
  };
}

void GraphTraining::WeighStatistics(double count) {
  const int64_t statistics = gradients_.size() - (trained_ - gradients_begin_);
  float* const values = gradients_.place() + (trained_ - gradients_begin_);
  const auto factor = static_cast<float>(count);
  if (options_.backend != nullptr) return options_.backend->Scale(statistics, factor, values);
  for (int64_t i = 0; i < statistics; ++i) values[i] *= factor;
}

void GraphTraining::MoveStatistics(double scale) {
  for (const ParameterView& view : parameters_) {
    if (!view.statistic) continue;
    const auto momentum = static_cast<float>(view.momentum);
    float* const values = weights_.place() + (view.offset - weights_begin_);
    const float* const measured = gradients_.place() + (view.offset - gradients_begin_);
    if (options_.backend != nullptr) {
      options_.backend->MoveTowards(view.size, momentum, static_cast<float>(scale), measured,
                                    values);
      continue;
    }
    for (int64_t i = 0; i < view.size; ++i) {
      const float mean = measured[i] * static_cast<float>(scale);
      values[i] += momentum * (mean - values[i]);
    }
  }
}

// NaN when the device, or the group of a divided model, failed, and where there are none.
double GraphTraining::NormOfGradients() {
  if (!options_.trains) return std::numeric_limits<double>::quiet_NaN();
  const float* const values = gradients_.Current();
  if (options_.tensor.divided()) {
    const std::span<const float> mine(values, static_cast<size_t>(trained_));
    return NormOverRanks(parameters_, options_.tensor, mine, *tensor_);
  }
  if (options_.backend == nullptr) return GlobalNorm({values, static_cast<size_t>(trained_)});
  const Result<double> squares = options_.backend->SumOfSquares(trained_, values);
  LOG_IF(ERROR, !squares.ok()) << squares.status().ToString();
  return squares.ok() ? std::sqrt(*squares) : std::numeric_limits<double>::quiet_NaN();
}

double GraphTraining::ClippedScale(double scale, double norm) const {
  const bool clip = options_.clip_norm > 0 && norm > options_.clip_norm;
  return clip ? scale * (options_.clip_norm / norm) : scale;
}

double GraphTraining::ApplyGradients(uint64_t step, double scale) {
  const double norm = NormOfGradients() * std::abs(scale);
  if (!std::isfinite(norm)) return norm;
  const auto floats = [](DeviceFloats& of) {
    return std::span<float>(of.Current(), static_cast<size_t>(of.size()));
  };
  UpdateWeights(options_.optimizer, LearningRate(step), step - optimizer_begin_,
                ClippedScale(scale, norm), update_ranges_, floats(weights_), floats(gradients_),
                floats(optimizer_state_), options_.backend);
  MoveStatistics(scale);
  weights_.Wrote();
  optimizer_state_.Wrote();
  ++version_;
  return norm;
}

void GraphTraining::ApplyPart(uint64_t step, double scale, double norm, const Part& part) {
  CHECK(options_.backend == nullptr) << "parts are updated on the host";
  const std::span<float> mine =
      !part.weights.empty()
          ? part.weights
          : weights().subspan(static_cast<size_t>(part.begin), part.gradients.size());
  UpdatePart(options_.optimizer, LearningRate(step), step, ClippedScale(scale, norm),
             update_ranges_, part.begin, mine, part.gradients, part.state);
}

void GraphTraining::FinishParts(double scale) {
  MoveStatistics(scale);
  weights_.Wrote();
  ++version_;
}

}  // namespace lepton::nn
