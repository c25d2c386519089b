#include "runtime/nn/graph_training.h"

#include <limits>

#include "runtime/base/logging.h"
#include "runtime/graph/autodiff.h"
#include "runtime/nn/divided_model.h"
#include "runtime/nn/model_list.h"

namespace lepton::nn {
namespace {

// Kernels read inputs through the same untyped pointers that they write outputs through.
template <typename T>
void* Readable(std::span<const T> values) {
  return const_cast<T*>(values.data());
}

// The gradient of each trained parameter, and what the batch says of each statistic.
Result<std::vector<graph::ValueId>> AddParameterGradients(graph::Graph& graph,
                                                          const LossNodes& loss,
                                                          const ModelBuilder& builder,
                                                          bool recompute) {
  std::vector<graph::ValueId> trained;
  for (const auto& parameter : builder.parameters()) {
    if (!parameter.view.statistic) trained.push_back(parameter.value);
  }
  LEPTON_ASSIGN_OR_RETURN(
      const std::vector<graph::ValueId> gradients,
      graph::AddGradients(graph, loss.row_losses, trained,
                          {.recompute_blocks = recompute, .recompute_cheap = true}));
  std::vector<graph::ValueId> values;
  size_t next = 0;
  for (const auto& parameter : builder.parameters()) {
    values.push_back(parameter.view.statistic ? parameter.of_batch : gradients[next++]);
  }
  return values;
}

}  // namespace

// What a step computes, from the logits on.
Status GraphTraining::CompileStep(graph::ValueId logits) {
  LEPTON_ASSIGN_OR_RETURN(loss_, AddLoss(graph_, signature_, options_, logits));
  LEPTON_ASSIGN_OR_RETURN(gradient_values_, AddParameterGradients(graph_, loss_, builder_,
                                                                  options_.recompute_activations));
  LEPTON_RETURN_IF_ERROR(graph_.AddOutput(loss_.row_losses, /*external=*/false));
  for (size_t i = 0; i < gradient_values_.size(); ++i) {
    const bool passing = !options_.keeps_gradients && !builder_.parameters()[i].view.statistic;
    LEPTON_RETURN_IF_ERROR(passing ? graph_.AddPassingOutput(gradient_values_[i])
                                   : graph_.AddOutput(gradient_values_[i], /*external=*/true));
  }
  return Status::Ok();
}

Status GraphTraining::Compile() {
  inputs_ = AddInputs(graph_, signature_);
  LEPTON_ASSIGN_OR_RETURN(const graph::ValueId logits,
                          BuildModel(builder_, signature_, options_.model, inputs_));
  if (options_.trains) LEPTON_RETURN_IF_ERROR(CompileStep(logits));

  const int64_t elements = builder_.parameter_elements();
  trained_ = builder_.trained_elements();
  gradients_begin_ = !options_.trains ? elements : options_.keeps_gradients ? 0 : trained_;
  const int64_t state = options_.trains && options_.keeps_optimizer_state
                            ? OptimizerStateSize(options_.optimizer, builder_.trained_elements())
                            : 0;
  LEPTON_RETURN_IF_ERROR(CheckMemory("weights, gradients and the optimizer's state",
                                     (2 * elements - gradients_begin_ + state) * sizeof(float)));
  parameters_ = ParameterViews(builder_.parameters());
  if (options_.keeps_weights) {
    LEPTON_ASSIGN_OR_RETURN(weights_, DeviceFloats::Make(options_.backend, elements));
  }
  LEPTON_ASSIGN_OR_RETURN(gradients_,
                          DeviceFloats::Make(options_.backend, elements - gradients_begin_));
  LEPTON_ASSIGN_OR_RETURN(optimizer_state_, DeviceFloats::Make(options_.backend, state));
  update_ranges_ = UpdateRanges(options_.optimizer, parameters_);
  LEPTON_ASSIGN_OR_RETURN(
      forward_,
      ForwardProgram::Build(
          signature_, options_.model,
          options_.inference_precision.empty() ? options_.precision : options_.inference_precision,
          options_.backend, !options_.keeps_packs, options_.tensor, arena_));
  forward_->Profile(options_.profile);
  if (options_.keeps_weights) MakeWeights();
  return Status::Ok();
}

Status GraphTraining::CheckExamples(const Batch& batch, const Targets& targets) const {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  const int64_t predictions = Predictions(signature_, batch);
  LEPTON_RETURN_IF_ERROR(CheckTargets(signature_, options_.loss, predictions, targets));
  const auto wanted = static_cast<size_t>(predictions * signature_.outputs);
  if (options_.distill && targets.teacher_logits.size() != wanted) {
    return InvalidArgument("targets.teacher_logits: has " +
                           std::to_string(targets.teacher_logits.size()) + " numbers; must have " +
                           std::to_string(wanted));
  }
  return Status::Ok();
}

Status GraphTraining::CheckTensorGroup() const {
  if (!options_.tensor.divided() || tensor_ != nullptr) return Status::Ok();
  return FailedPrecondition("the other parts of the model are with others");
}

Result<LossSum> GraphTraining::ForwardBackward(const Batch& batch, const Targets& targets,
                                               uint64_t step, uint32_t shard) {
  if (!options_.trains) return FailedPrecondition("the program was not built to train");
  if (!options_.keeps_gradients && !ready_) return FailedPrecondition("nobody takes the gradients");
  LEPTON_RETURN_IF_ERROR(CheckTensorGroup());
  LEPTON_RETURN_IF_ERROR(CheckExamples(batch, targets));
  bool made = false;
  const std::vector<TensorType> types = loss_.InputTypes(signature_, options_, batch);
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, executor_.PlanFor(types, &made));
  if (!visits_) MakeWeights();
  if (made) BindParameters(*plan);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(plan->Feed(inputs_[i], batch.inputs[i].data));
  }
  // By the loss, not by which span is there: a caller may hold both.
  LEPTON_RETURN_IF_ERROR(plan->Feed(loss_.targets, options_.loss == "cross_entropy"
                                                       ? Readable(targets.classes)
                                                       : Readable(targets.values)));
  if (options_.distill) {
    LEPTON_RETURN_IF_ERROR(plan->Feed(loss_.teacher, Readable(targets.teacher_logits)));
  }
  LEPTON_RETURN_IF_ERROR(
      RunPlan(*plan, graph::RunState{options_.seed, step, shard, options_.profile, tensor_}));
  gradients_.Wrote();
  LossSum loss;
  LEPTON_ASSIGN_OR_RETURN(loss.sum, SumRowLosses(*plan));
  loss.count = CountTargets(signature_, options_.loss, Predictions(signature_, batch), targets);
  WeighStatistics(loss.count);
  return loss;
}

Status GraphTraining::RunPlan(graph::Plan& plan, const graph::RunState& state) {
  running_ = &plan;
  if (visits_) {
    Foresee(plan);
    plan.RunVisiting(
        state, [&](auto values) { return BindNeeded(plan, values); }, output_ready_);
    if (!visits_->status().ok()) {
      named_.assign(parameters_.size(), false);
      return visits_->status();
    }
  } else {
    weights_.Current();
    plan.RunPrologue(state, version_);
    plan.Run(state, output_ready_);
  }
  if (!options_.keeps_gradients) NameTheRest();
  return tensor_ == nullptr ? Status::Ok() : tensor_->status();
}

Result<double> GraphTraining::SumRowLosses(graph::Plan& plan) {
  const TensorView& view = plan.view(loss_.row_losses);
  std::span<const float> rows = view.span<const float>();
  if (options_.backend != nullptr) {
    row_losses_.resize(rows.size());
    LEPTON_RETURN_IF_ERROR(plan.Fetch(loss_.row_losses, row_losses_.data())
                               .WithContext(options_.backend->description()));
    rows = row_losses_;
  }
  double sum = 0;
  for (const float row : rows) sum += row;
  return sum;
}

Status GraphTraining::PrepareForward() {
  LEPTON_RETURN_IF_ERROR(CheckTensorGroup());
  if (!visits_) {
    MakeWeights();
    weights_.Current();
  }
  forward_->Prepare(version_);
  return Status::Ok();
}

Status GraphTraining::Forward(const Batch& batch, std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(PrepareForward());
  return forward_->Forward(batch, logits);
}

Status GraphTraining::ForwardPieces(const Batch& batch, const TakeLogits& take) {
  LEPTON_RETURN_IF_ERROR(PrepareForward());
  return forward_->ForwardPieces(batch, take);
}

Result<LossSum> GraphTraining::Evaluate(const Batch& batch, const Targets& targets,
                                        std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  const int64_t predictions = Predictions(signature_, batch);
  LEPTON_RETURN_IF_ERROR(CheckTargets(signature_, options_.loss, predictions, targets));
  LEPTON_RETURN_IF_ERROR(Forward(batch, logits));
  return SumLabelLoss(signature_, options_.loss, predictions, targets, logits);
}

Result<LossSum> GraphTraining::EvaluatePieces(const Batch& batch, const Targets& targets,
                                              const TakeLogits& take) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  LEPTON_RETURN_IF_ERROR(
      CheckTargets(signature_, options_.loss, Predictions(signature_, batch), targets));
  LossSum total;
  LEPTON_RETURN_IF_ERROR(ForwardPieces(batch, [&](int64_t first, std::span<const float> logits) {
    AddLabelLosses(signature_, options_.loss, first, targets, logits, total);
    return take(first, logits);
  }));
  return total;
}

}  // namespace lepton::nn
