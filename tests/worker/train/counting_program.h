// A training program that passes everything on and says which shards' steps it computed.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tests/worker/train/zero_gang.h"

namespace lepton::testing {

class Counting final : public nn::TrainingProgram {
 public:
  explicit Counting(std::unique_ptr<nn::TrainingProgram> inner) : inner_(std::move(inner)) {}
  const nn::Signature& signature() const override { return inner_->signature(); }
  const std::vector<nn::ParameterView>& parameters() const override { return inner_->parameters(); }
  std::span<float> weights() override { return inner_->weights(); }
  std::span<float> gradients() override { return inner_->gradients(); }
  std::span<float> optimizer_state() override { return inner_->optimizer_state(); }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets& targets,
                                      uint64_t step, uint32_t shard) override {
    computed.emplace_back(step, shard);
    const std::span<const float> x = batch.inputs[0].span<const float>();
    for (size_t row = 0; row < x.size(); row += kColumns) rows.push_back(x[row]);
    return inner_->ForwardBackward(batch, targets, step, shard);
  }
  double ApplyGradients(uint64_t step, double scale) override {
    const double norm = inner_->ApplyGradients(step, scale);
    return step == bad_step ? std::nan("") : norm;
  }
  int state_per_element() const override { return inner_->state_per_element(); }
  void RestartOptimizer(uint64_t step) override { inner_->RestartOptimizer(step); }
  double LearningRate(uint64_t step) const override { return inner_->LearningRate(step); }
  Status Forward(const nn::Batch& batch, std::span<float> logits) override {
    return inner_->Forward(batch, logits);
  }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets& targets,
                               std::span<float> logits) override {
    return inner_->Evaluate(batch, targets, logits);
  }

  std::vector<std::pair<uint64_t, uint32_t>> computed;
  std::vector<float> rows;  // the first feature of each, which names it
  uint64_t bad_step = ~uint64_t{0};

 private:
  const std::unique_ptr<nn::TrainingProgram> inner_;
};

// Of a member that counts.
inline Counting& Count(Member& member) {
  auto counting = std::make_unique<Counting>(std::move(member.program));
  Counting& program = *counting;
  member.program = std::move(counting);
  return program;
}

}  // namespace lepton::testing
