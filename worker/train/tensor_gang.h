// parallel.tensor: the groups that a gang's rank belongs to (docs/decisions/tensor_parallel.md).
//
//   rank        0 1 | 2 3 | 4 5     T = 2, three replicas of the model
//   mates       0 1   2 3   4 5     share a replica: each has a slice of every layer
//   data        0 2 4   1 3 5       hold the same slices: their gradients are summed
//
// Mates take part in each other's passes (graph::TensorGroup). The first failure of theirs sticks.
// Threads: one caller.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/graph/tensor_group.h"
#include "runtime/nn/training_program.h"
#include "worker/task_context.h"
#include "worker/train/step_tail.h"
#include "worker/train/zero_state.h"

namespace lepton::worker {

// Of a rank of a gang in which so many share a model.
nn::TensorPlace TensorPlaceOf(int rank, int tensor);

class TensorGang final : public graph::TensorGroup {
 public:
  // Collective over `gang`, which outlives it; null where spec().parallel.tensor is 1.
  static Result<std::unique_ptr<TensorGang>> Join(TaskContext& context,
                                                  collectives::Communicator& gang);
  TensorGang(collectives::Communicator& gang, std::unique_ptr<collectives::Communicator> mates,
             std::unique_ptr<collectives::Communicator> data)
      : gang_(gang), mates_(std::move(mates)), data_(std::move(data)) {}

  collectives::Communicator& gang() { return gang_; }
  collectives::Communicator& data() { return *data_; }
  // Of the replica that rank 0 of the gang belongs to: it writes what there is to write.
  bool first_replica() const { return data_->rank() == 0; }

  void AllReduce(const float* in, float* out, size_t count) override;
  void AllGather(const void* in, void* out, size_t bytes) override;
  Status status() const override { return status_; }

  // All mates have the first one's undivided weights: hosts may differ in how they round as they
  // draw them.
  Status ShareUndivided(nn::TrainingProgram& program);
  // Wishes of all ranks, in place of those of `sums`, which are of ranks with this rank's slices.
  // kDataLoss when mates do not have the same loss and the same undivided weights: they would drift
  // apart.
  Status AgreeOnStep(nn::TrainingProgram& program, StepSums& sums);
  // The state of the program's `number`th tensor as that of the undivided model: the optimiser's,
  // component by component, and the weights last. Mates call it together, and all have it.
  Result<std::vector<std::vector<float>>> Undivided(nn::TrainingProgram& program, size_t number);
  // All groups are over, for this cause, which is the result.
  Status Abort(Status cause);

 private:
  collectives::Communicator& gang_;
  const std::unique_ptr<collectives::Communicator> mates_, data_;
  Status status_;
};

}  // namespace lepton::worker
