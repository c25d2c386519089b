#include "worker/train/tensor_gang.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "runtime/base/progress.h"
#include "runtime/nn/divided_model.h"
#include "worker/train/parameter_digest.h"

namespace lepton::worker {
namespace {

using collectives::DataType;

// Of what each mate has whole.
uint64_t DigestOfUndivided(nn::TrainingProgram& program) {
  std::vector<uint64_t> digests;
  const std::span<const float> weights = program.weights();
  for (const nn::ParameterView& view : program.parameters()) {
    if (!view.slice.cut()) digests.push_back(DigestOf(weights.subspan(view.offset, view.size)));
  }
  uint64_t sum = 0;
  for (const uint64_t digest : digests) {
    sum = (sum ^ digest) * 0x9E3779B97F4A7C15u;
    sum ^= sum >> 32;
  }
  return sum;
}

}  // namespace

nn::TensorPlace TensorPlaceOf(int rank, int tensor) {
  return {rank % tensor, tensor};
}

Result<std::unique_ptr<TensorGang>> TensorGang::Join(TaskContext& context,
                                                     collectives::Communicator& gang) {
  const int tensor = context.spec().parallel.tensor;
  if (tensor == 1) return std::unique_ptr<TensorGang>();
  const int replica = gang.rank() / tensor;
  LEPTON_ASSIGN_OR_RETURN(auto mates, context.JoinGroup(gang, replica, 0));
  LEPTON_ASSIGN_OR_RETURN(auto data,
                          context.JoinGroup(gang, gang.rank() % tensor, context.spec().shards()));
  return std::make_unique<TensorGang>(gang, std::move(mates), std::move(data));
}

void TensorGang::AllReduce(const float* in, float* out, size_t count) {
  if (!status_.ok()) return;
  const progress::Waiting waiting;
  status_ = mates_->AllReduce(in, out, count, DataType::kFloat32, collectives::ReduceOp::kSum)
                .WithContext("sum over the ranks of a layer");
}

void TensorGang::AllGather(const void* in, void* out, size_t bytes) {
  if (!status_.ok()) return;
  const progress::Waiting waiting;
  status_ =
      mates_->AllGather(in, out, bytes, DataType::kUInt8).WithContext("what a layer's ranks hold");
}

Status TensorGang::ShareUndivided(nn::TrainingProgram& program) {
  const std::span<float> weights = program.weights();
  for (const nn::ParameterView& view : program.parameters()) {
    if (view.slice.cut()) continue;
    const std::span<float> values = weights.subspan(view.offset, view.size);
    LEPTON_RETURN_IF_ERROR(
        mates_->Broadcast(values.data(), values.size(), DataType::kFloat32, /*root=*/0));
  }
  return Status::Ok();
}

Status TensorGang::AgreeOnStep(nn::TrainingProgram& program, StepSums& sums) {
  struct Told {
    uint64_t digest;
    uint64_t loss;  // its bits
    int64_t stop, written;
  };
  // What is not finite ends the run on all ranks, for that reason.
  const double loss = std::isfinite(sums.loss.sum) ? sums.loss.sum : 0;
  const Told mine{DigestOfUndivided(program), std::bit_cast<uint64_t>(loss), sums.stop,
                  sums.written};
  std::vector<Told> all(static_cast<size_t>(mates_->size()));
  AllGather(&mine, all.data(), sizeof(Told));
  LEPTON_RETURN_IF_ERROR(status_);
  sums.stop = sums.written = 0;
  for (size_t mate = 0; mate < all.size(); ++mate) {
    sums.stop += static_cast<int>(all[mate].stop);
    sums.written += static_cast<int>(all[mate].written);
    const bool same = all[mate].digest == all[0].digest && all[mate].loss == all[0].loss;
    if (same) continue;
    return DataLoss(fmt::format(
        "ranks {} and {}, which share a model, do not have the same {}",
        data_->rank() * mates_->size(), data_->rank() * mates_->size() + static_cast<int>(mate),
        all[mate].digest == all[0].digest ? "loss" : "undivided parameters"));
  }
  return Status::Ok();
}

Result<std::vector<std::vector<float>>> TensorGang::Undivided(nn::TrainingProgram& program,
                                                              size_t number) {
  const nn::ParameterView& view = program.parameters()[number];
  std::vector<std::vector<float>> state;
  const auto add = [&](std::span<const float> all, int64_t offset) {
    state.push_back(
        nn::GatherWhole(this, view.shape, view.slice,
                        all.subspan(static_cast<size_t>(offset), static_cast<size_t>(view.size))));
  };
  const int64_t mine = TrainedElements(program.parameters());
  for (int c = 0; c < program.state_per_element(); ++c) {
    add(program.optimizer_state(), c * mine + view.offset);
  }
  add(program.weights(), view.offset);
  LEPTON_RETURN_IF_ERROR(status_);
  return state;
}

Status TensorGang::Abort(Status cause) {
  for (collectives::Communicator* group : {mates_.get(), data_.get(), &gang_}) group->Abort(cause);
  return cause;
}

}  // namespace lepton::worker
