#include "runtime/nn/losses.h"

#include <algorithm>
#include <cmath>

namespace lepton::nn {

using graph::ValueId;

Status CheckLoss(const Signature& signature, const TrainingProgram::Options& options) {
  const std::string& loss = options.loss;
  if (loss != "cross_entropy" && loss != "binary_cross_entropy" && loss != "mse") {
    return InvalidArgument("loss: '" + loss +
                           "' is unknown: must be cross_entropy, binary_cross_entropy or mse");
  }
  if (loss == "cross_entropy" && signature.outputs < 2) {
    return InvalidArgument("loss: cross_entropy needs at least 2 classes; the labels have " +
                           std::to_string(signature.outputs));
  }
  if (!options.distill) return Status::Ok();
  if (loss != "cross_entropy") {
    return InvalidArgument("loss: '" + loss + "' cannot be distilled: must be cross_entropy");
  }
  const DistillOptions& distill = options.distill_options;
  if (!(distill.temperature > 0)) {
    return InvalidArgument("distill.temperature: must be greater than 0");
  }
  if (!(distill.alpha >= 0 && distill.alpha <= 1)) {
    return InvalidArgument("distill.alpha: must be in [0, 1]");
  }
  return Status::Ok();
}

namespace {

// Of what a loss compares the logits with: one class, or `outputs` values, per prediction.
TensorType TargetsType(const Signature& signature, const std::string& loss, Shape predictions) {
  if (loss == "cross_entropy") return {DType::kI32, std::move(predictions)};
  std::vector<int64_t> extents = predictions.extents();
  extents.push_back(signature.outputs);
  return {DType::kF32, Shape(std::move(extents))};
}

TensorType LogitsType(const Signature& signature, Shape predictions) {
  return TargetsType(signature, "", std::move(predictions));
}

}  // namespace

std::vector<TensorType> LossNodes::InputTypes(const Signature& signature,
                                              const TrainingProgram::Options& options,
                                              const Batch& batch) const {
  std::vector<TensorType> types = batch.types();
  const Shape predictions =
      signature.per_token ? batch.inputs.front().shape() : Shape({batch.rows()});
  types.push_back(TargetsType(signature, options.loss, predictions));
  if (options.distill) types.push_back(LogitsType(signature, predictions));
  return types;
}

Result<LossNodes> AddLoss(graph::Graph& graph, const Signature& signature,
                          const TrainingProgram::Options& options, ValueId logits) {
  LossNodes nodes;
  const Shape predictions =
      signature.per_token ? Shape({Shape::kBatch, Shape::kSequence}) : Shape({Shape::kBatch});
  nodes.targets = graph.AddInput("targets", TargetsType(signature, options.loss, predictions));
  LEPTON_ASSIGN_OR_RETURN(nodes.row_losses,
                          graph.Add(options.loss, {logits, nodes.targets}, {}, "loss/labels"));
  if (!options.distill) return nodes;

  const auto [temperature, alpha] = options.distill_options;
  nodes.teacher = graph.AddInput("teacher", LogitsType(signature, predictions));
  LEPTON_ASSIGN_OR_RETURN(const ValueId soft,
                          graph.Add("distillation", {logits, nodes.teacher},
                                    {{"temperature", temperature}}, "loss/teacher"));
  LEPTON_ASSIGN_OR_RETURN(const ValueId soft_part, graph.Add("scale", {soft}, {{"factor", alpha}}));
  LEPTON_ASSIGN_OR_RETURN(const ValueId label_part,
                          graph.Add("scale", {nodes.row_losses}, {{"factor", 1 - alpha}}));
  LEPTON_ASSIGN_OR_RETURN(nodes.row_losses,
                          graph.Add("add", {soft_part, label_part}, {}, "loss/sum"));
  return nodes;
}

Status CheckTargets(const Signature& signature, const std::string& loss, int64_t predictions,
                    const Targets& targets) {
  if (loss != "cross_entropy") {
    const int64_t wanted = predictions * signature.outputs;
    if (targets.values.size() == static_cast<size_t>(wanted)) return Status::Ok();
    return InvalidArgument("targets.values: has " + std::to_string(targets.values.size()) +
                           " numbers; must have " + std::to_string(wanted));
  }
  if (targets.classes.size() != static_cast<size_t>(predictions)) {
    return InvalidArgument("targets.classes: has " + std::to_string(targets.classes.size()) +
                           " rows; must have " + std::to_string(predictions));
  }
  for (const int32_t label : targets.classes) {
    if (label != kNoTarget && (label < 0 || label >= signature.outputs)) {
      return InvalidArgument("targets.classes: " + std::to_string(label) +
                             " is out of range: must be in 0.." +
                             std::to_string(signature.outputs - 1));
    }
  }
  return Status::Ok();
}

double CountTargets(const Signature&, const std::string& loss, int64_t predictions,
                    const Targets& targets) {
  if (loss != "cross_entropy") return static_cast<double>(predictions);
  return static_cast<double>(predictions -
                             std::count(targets.classes.begin(), targets.classes.end(), kNoTarget));
}

namespace {

double RowCrossEntropy(std::span<const float> row, int32_t label) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float z : row) sum += std::exp(z - top);
  return top + std::log(sum) - row[label];
}

double RowBinaryCrossEntropy(std::span<const float> row, const float* targets) {
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double z = row[i];
    sum += std::max(z, 0.0) - z * targets[i] + std::log1p(std::exp(-std::abs(z)));
  }
  return sum / static_cast<double>(row.size());
}

double RowSquaredError(std::span<const float> row, const float* targets) {
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    sum += (double{row[i]} - targets[i]) * (double{row[i]} - targets[i]);
  }
  return sum / static_cast<double>(row.size());
}

}  // namespace

void AddLabelLosses(const Signature& signature, const std::string& loss, int64_t first,
                    const Targets& targets, std::span<const float> logits, LossSum& total) {
  const auto outputs = static_cast<size_t>(signature.outputs);
  for (size_t at = 0; at < logits.size(); at += outputs, ++first) {
    const auto row = logits.subspan(at, outputs);
    if (loss == "cross_entropy") {
      if (targets.classes[first] == kNoTarget) continue;
      total.sum += RowCrossEntropy(row, targets.classes[first]);
    } else {
      const float* values = targets.values.data() + first * signature.outputs;
      total.sum +=
          loss == "mse" ? RowSquaredError(row, values) : RowBinaryCrossEntropy(row, values);
    }
    total.count += 1;
  }
}

LossSum SumLabelLoss(const Signature& signature, const std::string& loss, int64_t predictions,
                     const Targets& targets, std::span<const float> logits) {
  LossSum total;
  AddLabelLosses(signature, loss, 0, targets,
                 logits.first(static_cast<size_t>(predictions * signature.outputs)), total);
  return total;
}

}  // namespace lepton::nn
