#include "runtime/nn/training_program.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/base/logging.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/nn/device_floats.h"
#include "runtime/nn/divided_model.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/losses.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/optimizers.h"
#include "runtime/nn/schedules.h"
#include "runtime/nn/weight_visits.h"

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
      graph::AddGradients(graph, loss.row_losses, trained, {.recompute_blocks = recompute}));
  std::vector<graph::ValueId> values;
  size_t next = 0;
  for (const auto& parameter : builder.parameters()) {
    values.push_back(parameter.view.statistic ? parameter.of_batch : gradients[next++]);
  }
  return values;
}

std::vector<size_t> InNameOrder(const std::vector<ParameterView>& parameters) {
  std::vector<size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return parameters[a].name < parameters[b].name; });
  return order;
}

class GraphTraining final : public TrainingProgram {
 public:
  GraphTraining(const Signature& signature, const Options& options)
      : signature_(signature),
        options_(options),
        graph_(onnx::ImportOps()),
        builder_(graph_, /*training=*/true, options.precision, options.tensor),
        executor_(graph_, KernelsOf(options.backend), {},
                  PlanOptionsOf(options.backend, !options.keeps_packs)) {}

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
  size_t arena_bytes() const override { return executor_.largest_arena(); }
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
  Result<LossSum> Evaluate(const Batch& batch, const Targets& targets,
                           std::span<float> logits) override;

 private:
  void MakeWeights();
  Status CheckExamples(const Batch& batch, const Targets& targets) const;
  Status CheckTensorGroup() const;
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

Status GraphTraining::Compile() {
  inputs_ = AddInputs(graph_, signature_);
  LEPTON_ASSIGN_OR_RETURN(const graph::ValueId logits,
                          BuildModel(builder_, signature_, options_.model, inputs_));
  LEPTON_ASSIGN_OR_RETURN(loss_, AddLoss(graph_, signature_, options_, logits));
  LEPTON_ASSIGN_OR_RETURN(gradient_values_, AddParameterGradients(graph_, loss_, builder_,
                                                                  options_.recompute_activations));
  LEPTON_RETURN_IF_ERROR(graph_.AddOutput(loss_.row_losses, /*external=*/false));
  for (size_t i = 0; i < gradient_values_.size(); ++i) {
    const bool passing = !options_.keeps_gradients && !builder_.parameters()[i].view.statistic;
    LEPTON_RETURN_IF_ERROR(passing ? graph_.AddPassingOutput(gradient_values_[i])
                                   : graph_.AddOutput(gradient_values_[i], /*external=*/true));
  }

  const int64_t elements = builder_.parameter_elements();
  trained_ = builder_.trained_elements();
  gradients_begin_ = options_.keeps_gradients ? 0 : trained_;
  const int64_t state = options_.keeps_optimizer_state
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
          options_.backend, !options_.keeps_packs, options_.tensor));
  if (options_.keeps_weights) MakeWeights();
  return Status::Ok();
}

void GraphTraining::MakeWeights() {
  if (made_weights_) return;
  made_weights_ = true;
  if (!options_.keeps_weights) {
    weights_ = *DeviceFloats::Make(nullptr, builder_.parameter_elements());
  }
  ++version_;
  InitializeParameters(builder_.parameters(), options_.seed, weights_.Host());
  forward_->BindInPlace(weights_.place());
}

void GraphTraining::ReadWeights(int64_t begin, std::span<float> to) {
  if (made_weights_) return TrainingProgram::ReadWeights(begin, to);
  const int64_t end = begin + static_cast<int64_t>(to.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterView& view = parameters_[i];
    const int64_t from = std::max(begin, view.offset),
                  past = std::min(end, view.offset + view.size);
    if (from >= past) continue;
    if (drawn_.second.empty() || drawn_.first != i) {
      drawn_ = {i, std::vector<float>(static_cast<size_t>(view.size))};
      Initialize(builder_.parameters()[i].first, options_.seed, view.name, drawn_.second);
    }
    std::copy(drawn_.second.begin() + (from - view.offset),
              drawn_.second.begin() + (past - view.offset), to.begin() + (from - begin));
  }
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

void GraphTraining::BindParameters(graph::Plan& plan) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!visits_) {
      plan.Bind(builder_.parameters()[i].value, weights_.place() + parameters_[i].offset);
    }
    if (parameters_[i].offset < gradients_begin_) continue;
    plan.Bind(gradient_values_[i], gradients_.place() + (parameters_[i].offset - gradients_begin_));
  }
}

Result<LossSum> GraphTraining::ForwardBackward(const Batch& batch, const Targets& targets,
                                               uint64_t step, uint32_t shard) {
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

// The trained ones.
std::span<const size_t> GraphTraining::Needed(std::span<const graph::ValueId> values) {
  needed_.clear();
  for (const graph::ValueId value : values) {
    const size_t parameter = parameter_of_[static_cast<size_t>(value)];
    if (!parameters_[parameter].statistic) needed_.push_back(parameter);
  }
  return needed_;
}

void GraphTraining::Foresee(const graph::Plan& plan) {
  visits_->Begin([&](const WeightVisits::Step& step) {
    plan.Walk([&](auto values) {
      step(Needed(values));
      return true;
    });
  });
}

// What a step reads: the trained ones from where they came, the statistics from the program's own.
bool GraphTraining::BindNeeded(graph::Plan& plan, std::span<const graph::ValueId> values) {
  if (!visits_->Need(Needed(values))) return false;
  for (const graph::ValueId value : values) {
    const size_t i = parameter_of_[static_cast<size_t>(value)];
    plan.Bind(value, parameters_[i].statistic
                         ? weights_.place() + (parameters_[i].offset - weights_begin_)
                         : visits_->place(i));
  }
  return true;
}

void GraphTraining::VisitWeights(WeightSource* source, int64_t bucket_bytes) {
  CHECK(!options_.keeps_weights);
  if (!visits_) {
    visits_ = std::make_unique<WeightVisits>(parameters_, bucket_bytes);
    parameter_of_.assign(graph_.values().size(), 0);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      parameter_of_[static_cast<size_t>(builder_.parameters()[i].value)] = i;
    }
    DeviceFloats kept = *DeviceFloats::Make(nullptr, builder_.parameter_elements() - trained_);
    ReadWeights(trained_, kept.Host());
    weights_ = std::move(kept);
    weights_begin_ = trained_;
    made_weights_ = true;
    drawn_ = {};
    forward_->Visit(visits_.get(), [this](size_t statistic) {
      return weights_.place() + (parameters_[statistic].offset - weights_begin_);
    });
  }
  visits_->SetSource(source);
}

Status GraphTraining::PassThrough() {
  if (!visits_) return TrainingProgram::PassThrough();
  graph::Plan* plan = executor_.Latest();
  if (plan == nullptr) {
    const Batch one = EmptyRow(signature_);
    LEPTON_ASSIGN_OR_RETURN(plan, executor_.PlanFor(loss_.InputTypes(signature_, options_, one)));
    BindParameters(*plan);
  }
  running_ = plan;
  Foresee(*plan);
  plan->Walk([&](auto values) { return BindNeeded(*plan, values); }, output_ready_);
  if (!visits_->status().ok()) {
    named_.assign(parameters_.size(), false);
    return visits_->status();
  }
  if (!options_.keeps_gradients) NameTheRest();
  return Status::Ok();
}

Status GraphTraining::AwaitForwards() {
  while (visits_) {
    if (visits_->source() == nullptr) return Status::Ok();
    LEPTON_ASSIGN_OR_RETURN(const bool others, visits_->source()->OthersForward());
    if (!others) return Status::Ok();
    LEPTON_RETURN_IF_ERROR(forward_->PassThrough());
  }
  return Status::Ok();
}

// Of a divided model: a parameter at a time.
Status GraphTraining::CollectWhole(const TakeWeights& take) {
  LEPTON_RETURN_IF_ERROR(CheckTensorGroup());
  const std::vector<ParameterView> whole = WholeParameters(parameters_);
  const std::span<const float> mine = weights();
  for (const size_t i : InNameOrder(parameters_)) {
    const ParameterView& view = parameters_[i];
    const std::vector<float> values =
        GatherWhole(tensor_, view.shape, view.slice, mine.subspan(view.offset, view.size));
    LEPTON_RETURN_IF_ERROR(tensor_->status());
    LEPTON_RETURN_IF_ERROR(take(whole[i], values));
  }
  return Status::Ok();
}

Status GraphTraining::CollectWeights(const TakeWeights& take) {
  if (options_.tensor.divided()) return CollectWhole(take);
  if (!visits_) return TrainingProgram::CollectWeights(take);
  if (visits_->source() == nullptr)
    return FailedPrecondition("the program's weights are with others");
  std::vector<float> values;
  for (const size_t i : InNameOrder(parameters_)) {
    const ParameterView& view = parameters_[i];
    if (view.statistic) {
      LEPTON_RETURN_IF_ERROR(
          take(view, weights().subspan(static_cast<size_t>(view.offset - weights_begin_),
                                       static_cast<size_t>(view.size))));
      continue;
    }
    values.resize(static_cast<size_t>(view.size));
    LEPTON_RETURN_IF_ERROR(visits_->source()->Bring(view.offset, values));
    LEPTON_RETURN_IF_ERROR(take(view, values));
  }
  return Status::Ok();
}

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

// NaN when the device, or the group of a divided model, failed.
double GraphTraining::NormOfGradients() {
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

Status GraphTraining::Forward(const Batch& batch, std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckTensorGroup());
  if (!visits_) {
    MakeWeights();
    weights_.Current();
  }
  forward_->Prepare(version_);
  return forward_->Forward(batch, logits);
}

Result<LossSum> GraphTraining::Evaluate(const Batch& batch, const Targets& targets,
                                        std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  const int64_t predictions = Predictions(signature_, batch);
  LEPTON_RETURN_IF_ERROR(CheckTargets(signature_, options_.loss, predictions, targets));
  LEPTON_RETURN_IF_ERROR(Forward(batch, logits));
  return SumLabelLoss(signature_, options_.loss, predictions, targets, logits);
}

}  // namespace

int64_t ElementsOf(const std::vector<ParameterView>& parameters) {
  int64_t elements = 0;
  for (const ParameterView& view : parameters) elements += view.size;
  return elements;
}

Status TrainingProgram::CollectWeights(const TakeWeights& take) {
  const std::span<const float> all = weights();
  for (const size_t i : InNameOrder(parameters())) {
    const ParameterView& view = parameters()[i];
    LEPTON_RETURN_IF_ERROR(
        take(view, all.subspan(static_cast<size_t>(view.offset), static_cast<size_t>(view.size))));
  }
  return Status::Ok();
}

Result<std::unique_ptr<TrainingProgram>> TrainingProgram::Build(const Signature& signature,
                                                                const Options& options) {
  LEPTON_RETURN_IF_ERROR(CheckPrecision(options.precision));
  LEPTON_RETURN_IF_ERROR(CheckOptimizer(options.optimizer));
  LEPTON_RETURN_IF_ERROR(CheckSchedule(options.schedule));
  LEPTON_RETURN_IF_ERROR(CheckLoss(signature, options));
  if (!options.keeps_gradients && options.backend != nullptr) {
    return InvalidArgument("gradients in passing are for the host alone");
  }
  if (!options.keeps_weights && (options.keeps_packs || options.backend != nullptr)) {
    return InvalidArgument("weights that visit are for the host alone, and kernels keep no copies");
  }
  if (options.tensor.divided() && (options.backend != nullptr || !options.keeps_optimizer_state ||
                                   !options.keeps_gradients || !options.keeps_weights)) {
    return InvalidArgument("a divided model is for the host alone, and keeps its state");
  }
  if (!(options.clip_norm >= 0)) return InvalidArgument("clip_norm: must not be negative");
  auto program = std::make_unique<GraphTraining>(signature, options);
  LEPTON_RETURN_IF_ERROR(program->Compile());
  return std::unique_ptr<TrainingProgram>(std::move(program));
}

}  // namespace lepton::nn
