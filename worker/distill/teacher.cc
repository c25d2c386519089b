#include "worker/distill/teacher.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/base/progress.h"
#include "worker/train/evaluation.h"

namespace lepton::worker {

Result<Teacher> Teacher::Load(const storage::ObjectStore& objects, const storage::Digest& manifest,
                              std::unique_ptr<kernels::DeviceBackend> device) {
  LEPTON_ASSIGN_OR_RETURN(StoredModel model, LoadModel(objects, manifest));
  if (model.manifest.loss != "cross_entropy") {
    return InvalidArgument("its loss is " + model.manifest.loss +
                           ", but only cross_entropy classifiers can teach");
  }
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<nn::TrainingProgram> program,
                          BuildEvaluator(model, "model", device.get()));
  return Teacher(std::move(model), std::move(device), std::move(program));
}

Result<std::vector<float>> Teacher::Logits(const Examples& examples,
                                           collectives::Communicator& gang) {
  const int64_t outputs = program_->signature().outputs;
  const int64_t block_rows = BlockRows(examples, program_->signature());
  const int64_t blocks = (examples.rows() + block_rows - 1) / block_rows;
  std::vector<float> logits(examples.rows() * outputs);
  BatchBuffer buffer(program_->signature());
  std::vector<int64_t> numbers;
  for (int64_t block = 0; block < blocks; ++block) {
    if (block * gang.size() / blocks != gang.rank()) continue;
    const int64_t first = block * block_rows;
    const progress::Computing computing("block of the teacher's answers", block + 1);
    numbers.resize(std::min(block_rows, examples.rows() - first));
    std::iota(numbers.begin(), numbers.end(), first);
    Status done = examples.Fill(0, numbers, buffer);
    if (done.ok()) {
      done = program_->Forward(
          buffer.batch(), std::span(logits).subspan(first * outputs, numbers.size() * outputs));
    }
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

Status Teacher::ShareLogits(const Examples& examples, collectives::Communicator& gang,
                            std::vector<float>& logits) {
  const int64_t mine = logits.empty() ? 0 : 1;
  std::vector<int64_t> have(static_cast<size_t>(gang.size()), mine);
  if (gang.size() > 1) {
    LEPTON_RETURN_IF_ERROR(gang.AllGather(&mine, have.data(), 1, collectives::DataType::kInt64)
                               .WithContext("teacher"));
  }
  const auto source = std::find(have.begin(), have.end(), 1);
  if (source == have.end()) {
    LEPTON_ASSIGN_OR_RETURN(logits, Logits(examples, gang));
    return Status::Ok();
  }
  if (std::find(have.begin(), have.end(), 0) == have.end()) return Status::Ok();
  // A broadcast that fails leaves anything in a buffer: nobody receives into what it has.
  const auto root = static_cast<int>(source - have.begin());
  std::vector<float> copy;
  if (root != gang.rank()) {
    copy.resize(static_cast<size_t>(examples.rows() * program_->signature().outputs));
  }
  std::vector<float>& into = root == gang.rank() ? logits : copy;
  LEPTON_RETURN_IF_ERROR(
      gang.Broadcast(into.data(), into.size(), collectives::DataType::kFloat32, root)
          .WithContext("the teacher's logits"));
  if (logits.empty()) logits = std::move(copy);
  return Status::Ok();
}

}  // namespace lepton::worker
