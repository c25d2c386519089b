// Internal to runtime/nn: the training program of a model that is a graph. Its parts are in
// graph_training.cc (plans and passes), graph_training_weights.cc (weights, kept or visiting) and
// graph_training_updates.cc (gradients, their norm and the optimizer). Threads: as TrainingProgram.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/formats/onnx/import.h"
#include "runtime/graph/executor.h"
#include "runtime/nn/device_floats.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/losses.h"
#include "runtime/nn/model_builder.h"
#include "runtime/nn/optimizers.h"
#include "runtime/nn/schedules.h"
#include "runtime/nn/training_program.h"
#include "runtime/nn/weight_visits.h"

namespace lepton::nn {

class GraphTraining final : public TrainingProgram {
 public:
  GraphTraining(const Signature& signature, const Options& options)
      : signature_(signature),
        options_(options),
        graph_(onnx::ImportOps()),
        builder_(graph_, /*training=*/true, options.precision, options.tensor),
        executor_(graph_, KernelsOf(options.backend), {},
                  PlanOptionsOf(options.backend, !options.keeps_packs), MostPlans(options.backend),
                  arena_) {}

  Status Compile();

  const Signature& signature() const override { return signature_; }
  const std::vector<ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override {
    MakeWeights();
    ++version_;  // the caller may write to them
    return weights_.Host();
  }
  void ReadWeights(int64_t begin, std::span<float> to) override;
  int64_t weights_begin() const override { return weights_begin_; }
  std::span<float> gradients() override { return gradients_.Host(); }
  std::span<float> optimizer_state() override { return optimizer_state_.Host(); }

  Result<LossSum> ForwardBackward(const Batch& batch, const Targets& targets, uint64_t step,
                                  uint32_t shard) override;
  void WatchGradients(GradientReady ready) override;
  std::span<const float> gradient(size_t parameter) override;
  void VisitWeights(WeightSource* source, int64_t bucket_bytes) override;
  Status PassThrough() override;
  Status AwaitForwards() override;
  void JoinTensorGroup(graph::TensorGroup* group) override {
    tensor_ = group;
    forward_->JoinTensorGroup(group);
  }
  Status CollectWeights(const TakeWeights& take) override;
  size_t visiting_bytes() const override { return visits_ ? visits_->most_bytes() : 0; }
  size_t arena_bytes() const override {
    return arena_->bytes() + executor_.plan_bytes() + forward_->plan_bytes();
  }
  std::pair<size_t, size_t> largest_plan() const override { return executor_.largest_plan(); }
  size_t pack_bytes() const override { return executor_.pack_bytes() + forward_->pack_bytes(); }
  double ApplyGradients(uint64_t step, double scale) override;
  int state_per_element() const override {
    return static_cast<int>(OptimizerStateSize(options_.optimizer, 1));
  }
  void ApplyPart(uint64_t step, double scale, double norm, const Part& part) override;
  void FinishParts(double scale) override;
  void RestartOptimizer(uint64_t step) override {
    const std::span<float> state = optimizer_state();
    std::fill(state.begin(), state.end(), 0.0f);
    optimizer_begin_ = step;
  }
  double LearningRate(uint64_t step) const override {
    return ScheduledRate(options_.schedule, options_.optimizer.lr, options_.total_steps, step);
  }
  Status Forward(const Batch& batch, std::span<float> logits) override;
  Status ForwardPieces(const Batch& batch, const TakeLogits& take) override;
  Result<LossSum> Evaluate(const Batch& batch, const Targets& targets,
                           std::span<float> logits) override;
  Result<LossSum> EvaluatePieces(const Batch& batch, const Targets& targets,
                                 const TakeLogits& take) override;

 private:
  // For so many lengths of texts and sizes of shards.
  static size_t MostPlans(const kernels::DeviceBackend* backend) {
    return backend == nullptr ? 32 : graph::Executor::kMostPlans;
  }
  Status CompileStep(graph::ValueId logits);
  void MakeWeights();
  Status CheckExamples(const Batch& batch, const Targets& targets) const;
  Status CheckTensorGroup() const;
  Status PrepareForward();
  void BindParameters(graph::Plan& plan);
  void Foresee(const graph::Plan& plan);
  std::span<const size_t> Needed(std::span<const graph::ValueId> values);
  bool BindNeeded(graph::Plan& plan, std::span<const graph::ValueId> values);
  Status RunPlan(graph::Plan& plan, const graph::RunState& state);
  Result<double> SumRowLosses(graph::Plan& plan);
  void WeighStatistics(double count);
  void MoveStatistics(double scale);
  void NameTheRest();
  double NormOfGradients();
  Status CollectWhole(const TakeWeights& take);
  double ClippedScale(double scale, double norm) const;

  const Signature signature_;
  const Options options_;
  graph::Graph graph_;
  ModelBuilder builder_;
  // Evaluation's too: the two never run at once.
  const std::shared_ptr<graph::Arena> arena_ = std::make_shared<graph::Arena>();
  graph::Executor executor_;
  std::vector<graph::ValueId> inputs_;  // as signature_.inputs
  LossNodes loss_;
  std::vector<graph::ValueId> gradient_values_;  // as builder_.parameters()
  graph::Plan::OutputReady output_ready_;
  std::unique_ptr<ForwardProgram> forward_;
  std::vector<ParameterView> parameters_;
  std::vector<UpdateRange> update_ranges_;
  int64_t trained_ = 0;          // elements; statistics lie behind
  int64_t gradients_begin_ = 0;  // the first element that gradients_ has
  int64_t weights_begin_ = 0;    // the same of weights_
  bool made_weights_ = false;
  std::pair<size_t, std::vector<float>> drawn_;  // a parameter of those that were not made
  std::unique_ptr<WeightVisits> visits_;
  std::vector<size_t> parameter_of_;  // by value
  std::vector<size_t> needed_;
  graph::Plan* running_ = nullptr;
  graph::TensorGroup* tensor_ = nullptr;  // of a divided model
  GradientReady ready_;
  std::vector<bool> named_;  // by parameter: ready_ was called in this run
  DeviceFloats weights_, gradients_, optimizer_state_;
  std::vector<float> row_losses_;
  uint64_t version_ = 0;          // of the weights
  uint64_t optimizer_begin_ = 0;  // the step before which its state was zeros
};

}  // namespace lepton::nn
