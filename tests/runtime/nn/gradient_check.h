// A program's gradient against finite differences of its loss.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "tests/runtime/engine/programs.h"

namespace lepton::nn {

// Every trained parameter along a few random directions: the slope of the loss in f32 is too rough
// for single weights. `loss`: the sum of the losses with the weights as they are.
inline void CheckSlopes(TrainingProgram& program, const std::vector<float>& gradients,
                        const std::function<double()>& loss) {
  for (const ParameterView& view : program.parameters()) {
    if (view.statistic) continue;
    const auto weights = program.weights().subspan(view.offset, view.size);
    const std::vector<float> before(weights.begin(), weights.end());
    for (const uint64_t seed : {1, 2}) {
      const std::vector<float> direction = Noise(weights.size(), seed);
      double slope = 0, size = 0;
      for (size_t i = 0; i < weights.size(); ++i) {
        slope += double{gradients[view.offset + static_cast<int64_t>(i)]} * direction[i];
        size += double{direction[i]} * direction[i];
      }
      const float step = static_cast<float>(1e-2 / std::sqrt(size));
      const auto move = [&](float factor) {
        const auto moved = program.weights().subspan(view.offset, view.size);
        for (size_t i = 0; i < moved.size(); ++i) {
          moved[i] = before[i] + factor * step * direction[i];
        }
        return loss();
      };
      // Of fourth order: embeddings in front of a norm bend the loss a lot.
      const double measured = (8 * (move(1) - move(-1)) - (move(2) - move(-2))) / (12.0 * step);
      std::copy(before.begin(), before.end(), program.weights().begin() + view.offset);
      EXPECT_NEAR(slope, measured, 1e-3 + 0.02 * std::abs(measured)) << view.name;
    }
  }
}

// Against the loss without dropout and with running statistics.
inline void CheckGradients(TrainingProgram& program, const Batch& batch, const Targets& targets) {
  ASSERT_TRUE(program.ForwardBackward(batch, targets, 0, 0).ok());
  const std::vector<float> gradients(program.gradients().begin(), program.gradients().end());
  std::vector<float> logits(Predictions(program.signature(), batch) * program.signature().outputs);
  CheckSlopes(program, gradients,
              [&] { return program.Evaluate(batch, targets, logits).value().sum; });
}

// Against the loss as training sees it.
inline void CheckTrainingGradients(TrainingProgram& program, const Batch& batch,
                                   const Targets& targets) {
  ASSERT_TRUE(program.ForwardBackward(batch, targets, 0, 0).ok());
  const std::vector<float> gradients(program.gradients().begin(), program.gradients().end());
  CheckSlopes(program, gradients,
              [&] { return program.ForwardBackward(batch, targets, 0, 0).value().sum; });
}

}  // namespace lepton::nn
