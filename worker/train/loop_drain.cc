#include "worker/train/train_loop_impl.h"

#include <fmt/format.h>
#include <glog/logging.h>

namespace lepton::worker {

// Behind a step, where all ranks know of each other's wishes. kAborted: the group is over.
// A rank that was told to leave after it had said its wishes stays: the others count on it, and
// have written nothing.
Status TrainLoop::Impl::MayPart() {
  if (state_.step == run_.last_step) return Status::Ok();
  if (wishes_.leave > 0) {
    // Nobody goes before all have committed the step: who is told to leave next saves it then.
    LEPTON_RETURN_IF_ERROR(zero_ ? HandOver() : gang_->Barrier());
    if (leaves_) {
      return Cancelled(fmt::format("left the gang after step {}", state_.step));
    }
    return Aborted(fmt::format("{} of {} ranks left after step {}", wishes_.leave, gang_->size(),
                               state_.step));
  }
  if (wishes_.regroup == 0) return Status::Ok();
  return Aborted(fmt::format("the group ended after step {}, for a rank joins", state_.step));
}

// Of those that leave at once, both may hold the same slice.
Status TrainLoop::Impl::HandOver() {
  const int64_t mine = leaves_ ? 0 : 1;
  std::vector<int64_t> all(static_cast<size_t>(gang_->size()));
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(&mine, all.data(), 1, collectives::DataType::kInt64)
                             .WithContext("who leaves"));
  return zero_->HandOver(*gang_, std::vector<bool>(all.begin(), all.end()));
}

Status TrainLoop::Impl::Salvage() {
  if (!run_.checkpoints || !whole_ || state_.step <= state_.good_step) return Status::Ok();
  if (zero_ && !zero_->HoldsAll()) {
    LOG(WARNING) << "step " << state_.step << ": this rank's slices alone make no checkpoint";
    return Status::Ok();
  }
  const auto written = zero_ ? observer_.CheckpointParts(state_.step, state_.metrics,
                                                         [&](const ZeroState::TakeState& take) {
                                                           return zero_->CollectAlone(take);
                                                         })
                             : observer_.Checkpoint(state_.step, state_.metrics);
  return written.status().WithContext(fmt::format("checkpoint of step {}", state_.step));
}

}  // namespace lepton::worker
