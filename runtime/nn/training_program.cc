#include "runtime/nn/training_program.h"

#include "runtime/nn/graph_training.h"

namespace lepton::nn {

int64_t ElementsOf(const std::vector<ParameterView>& parameters) {
  int64_t elements = 0;
  for (const ParameterView& view : parameters) elements += view.size;
  return elements;
}

Status TrainingProgram::ForwardPieces(const Batch& batch, const TakeLogits& take) {
  std::vector<float> logits(
      static_cast<size_t>(Predictions(signature(), batch) * signature().outputs));
  LEPTON_RETURN_IF_ERROR(Forward(batch, logits));
  return take(0, logits);
}

Result<LossSum> TrainingProgram::EvaluatePieces(const Batch& batch, const Targets& targets,
                                                const TakeLogits& take) {
  std::vector<float> logits(
      static_cast<size_t>(Predictions(signature(), batch) * signature().outputs));
  LEPTON_ASSIGN_OR_RETURN(const LossSum loss, Evaluate(batch, targets, logits));
  LEPTON_RETURN_IF_ERROR(take(0, logits));
  return loss;
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
  if (!options.trains && (!options.keeps_weights || options.tensor.divided())) {
    return InvalidArgument("what does not train has its weights, whole");
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
