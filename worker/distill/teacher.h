// The model that a student learns from.
#pragma once

#include <memory>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/kernels/device_backend.h"
#include "runtime/nn/training_program.h"
#include "storage/objects/object_store.h"
#include "worker/data/examples.h"
#include "worker/train/model_files.h"

namespace lepton::worker {

class Teacher {
 public:
  // `device`: what it computes on; null: the host. kInvalidArgument when the model is not a
  // cross_entropy classifier.
  static Result<Teacher> Load(const storage::ObjectStore& objects, const storage::Digest& manifest,
                              std::unique_ptr<kernels::DeviceBackend> device = {});

  const StoredModel& model() const { return model_; }
  nn::TrainingProgram& program() { return *program_; }
  int64_t parameters() const { return model_.manifest.parameters; }

  // Logits [examples, classes] of data that was prepared like this model. Collective: each rank
  // computes its share of the examples and gets all of them.
  Result<std::vector<float>> Logits(const Examples& examples, collectives::Communicator& gang);
  // The same in a group some of whose ranks have them from an older one (`logits` is not empty):
  // the others get theirs. What was there does not move.
  Status ShareLogits(const Examples& examples, collectives::Communicator& gang,
                     std::vector<float>& logits);

 private:
  Teacher(StoredModel model, std::unique_ptr<kernels::DeviceBackend> device,
          std::unique_ptr<nn::TrainingProgram> program)
      : model_(std::move(model)), device_(std::move(device)), program_(std::move(program)) {}

  StoredModel model_;
  std::unique_ptr<kernels::DeviceBackend> device_;  // outlives the program
  std::unique_ptr<nn::TrainingProgram> program_;
};

}  // namespace lepton::worker
