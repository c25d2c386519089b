// The losses of a job: as graph nodes for training, and as plain sums for evaluation.
// Threads: pure functions.
#pragma once

#include "runtime/graph/graph.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {

// kInvalidArgument: an unknown loss, or one that does not fit the signature or distillation.
Status CheckLoss(const Signature& signature, const TrainingProgram::Options& options);

// With a prediction per token there is a further axis [batch, sequence, ..].
struct LossNodes {
  graph::ValueId targets = graph::kNoValue;     // input: i32 [batch], or f32 [batch, outputs]
  graph::ValueId teacher = graph::kNoValue;     // input f32 [batch, outputs], when distilling
  graph::ValueId row_losses = graph::kNoValue;  // f32 [batch]

  // The types of all inputs of a graph: the signature's, then those of the loss.
  std::vector<TensorType> InputTypes(const Signature& signature,
                                     const TrainingProgram::Options& options,
                                     const Batch& batch) const;
};
// Adds the inputs for the targets and the loss of each row; with distillation
// alpha * distillation(student, teacher; T) + (1 - alpha) * label loss.
Result<LossNodes> AddLoss(graph::Graph& graph, const Signature& signature,
                          const TrainingProgram::Options& options, graph::ValueId logits);

// kInvalidArgument: a wrong number of targets, or a class that is neither in [0, outputs) nor
// kNoTarget.
Status CheckTargets(const Signature& signature, const std::string& loss, int64_t predictions,
                    const Targets& targets);
// Predictions that have a target.
double CountTargets(const Signature& signature, const std::string& loss, int64_t predictions,
                    const Targets& targets);

// Adds those of predictions from number `first` on, of which these are the logits: one after the
// other, so that pieces make no difference.
void AddLabelLosses(const Signature& signature, const std::string& loss, int64_t first,
                    const Targets& targets, std::span<const float> logits, LossSum& total);
// The label losses, summed in double. Targets have been checked.
LossSum SumLabelLoss(const Signature& signature, const std::string& loss, int64_t predictions,
                     const Targets& targets, std::span<const float> logits);

}  // namespace lepton::nn
