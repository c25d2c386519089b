#include <numeric>

#include "runtime/base/logging.h"
#include "runtime/nn/divided_model.h"
#include "runtime/nn/graph_training.h"

namespace lepton::nn {
namespace {

std::vector<size_t> InNameOrder(const std::vector<ParameterView>& parameters) {
  std::vector<size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return parameters[a].name < parameters[b].name; });
  return order;
}

}  // namespace

Status TrainingProgram::CollectWeights(const TakeWeights& take) {
  const std::span<const float> all = weights();
  for (const size_t i : InNameOrder(parameters())) {
    const ParameterView& view = parameters()[i];
    LEPTON_RETURN_IF_ERROR(
        take(view, all.subspan(static_cast<size_t>(view.offset), static_cast<size_t>(view.size))));
  }
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

void GraphTraining::BindParameters(graph::Plan& plan) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!visits_) {
      plan.Bind(builder_.parameters()[i].value, weights_.place() + parameters_[i].offset);
    }
    if (parameters_[i].offset < gradients_begin_) continue;
    plan.Bind(gradient_values_[i], gradients_.place() + (parameters_[i].offset - gradients_begin_));
  }
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

}  // namespace lepton::nn
