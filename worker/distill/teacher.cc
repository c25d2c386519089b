#include "worker/distill/teacher.h"

#include <algorithm>

#include "worker/train/evaluation.h"

namespace lepton::worker {
namespace {
constexpr int64_t kBlockRows = 256;
}

Result<Teacher> Teacher::Load(const storage::ObjectStore& objects,
                              const storage::Digest& manifest) {
  LEPTON_ASSIGN_OR_RETURN(StoredModel model, LoadModel(objects, manifest));
  if (model.manifest.loss != "cross_entropy") {
    return InvalidArgument("its loss is " + model.manifest.loss +
                           ", but only cross_entropy classifiers can teach");
  }
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<nn::TrainingProgram> program, BuildEvaluator(model));
  return Teacher(std::move(model), std::move(program));
}

Result<std::vector<float>> Teacher::Logits(const DataPart& part, collectives::Communicator& gang) {
  const int64_t features = static_cast<int64_t>(model_.manifest.feature_names.size());
  const int64_t outputs = program_->signature().outputs;
  const int64_t blocks = (part.rows() + kBlockRows - 1) / kBlockRows;
  std::vector<float> logits(part.rows() * outputs);
  for (int64_t block = 0; block < blocks; ++block) {
    if (block * gang.size() / blocks != gang.rank()) continue;
    const int64_t first = block * kBlockRows;
    const int64_t rows = std::min(kBlockRows, part.rows() - first);
    const Status done = program_->Forward(
        nn::Batch::Features(std::span(part.x).subspan(first * features, rows * features), features),
        std::span(logits).subspan(first * outputs, rows * outputs));
    if (!done.ok()) return AbortGang(gang, done.WithContext("teacher"));
  }
  // Summed as integers: every other rank has zero bits there, so the floats arrive unchanged.
  if (gang.size() > 1) {
    LEPTON_RETURN_IF_ERROR(gang.AllReduce(logits.data(), logits.data(), logits.size(),
                                          collectives::DataType::kInt32,
                                          collectives::ReduceOp::kSum));
  }
  return logits;
}

}  // namespace lepton::worker
