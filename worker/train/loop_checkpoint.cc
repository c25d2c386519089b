#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/train/train_loop_impl.h"

namespace lepton::worker {

void TrainLoop::Impl::CheckpointShare::Set(const storage::Digest& written) {
  std::memcpy(digest, written.data(), std::min(sizeof(digest), written.size()));
}

storage::Digest TrainLoop::Impl::CheckpointShare::Get() const {
  return {digest, strnlen(digest, sizeof(digest))};
}

Result<std::vector<TrainLoop::Impl::CheckpointShare>> TrainLoop::Impl::TellEachOther(
    const CheckpointShare& mine) {
  static_assert(std::is_trivially_copyable_v<CheckpointShare>);
  std::vector<CheckpointShare> all(static_cast<size_t>(all_ranks().size()), mine);
  if (all.size() == 1) return all;
  LEPTON_RETURN_IF_ERROR(
      all_ranks()
          .AllGather(&mine, all.data(), sizeof(CheckpointShare), collectives::DataType::kUInt8)
          .WithContext("what is written of a checkpoint"));
  return all;
}

Status TrainLoop::Impl::CheckpointNow(Write how) {
  // Checkpoints are compared by their figures where the best are kept. One that is waited for is
  // the last step's, which is measured, or a stop's: that has a few seconds before the kill.
  const bool compared = run_.spec.checkpoint.keep_best.count > 0 && how == Write::kBesideSteps;
  LEPTON_RETURN_IF_ERROR(FinishJoin());
  if (compared) LEPTON_RETURN_IF_ERROR(EvaluateNow());
  LEPTON_RETURN_IF_ERROR(FinishCheckpoint());
  state_.checkpoint_due = false;
  LEPTON_RETURN_IF_ERROR(BeginCheckpoint());
  return how == Write::kNow ? FinishCheckpoint() : Status::Ok();
}

// A checkpoint's; none where they are of an older step, by which nobody may choose it.
Metrics TrainLoop::Impl::MetricsOfStep() const {
  return state_.evaluated_step == state_.step ? state_.metrics : Metrics();
}

CheckpointPoint TrainLoop::Impl::PendingPoint() const {
  CheckpointPoint point{state_.pending_step, state_.pending_metrics, {}, state_.pending_epoch_loss};
  if (state_.samples_counted) point.samples = state_.pending_samples;
  return point;
}

// All ranks have let go of the state on return.
Status TrainLoop::Impl::BeginCheckpoint() {
  const int count = SliceCount(), number = all_ranks().rank();
  LEPTON_ASSIGN_OR_RETURN(const StateSlices mine, SlicesOf(number, count));
  state_.pending_step = state_.step;
  state_.pending_slices = count > 1 ? count : 0;
  state_.pending_metrics = MetricsOfStep();
  state_.pending_samples = state_.samples;
  state_.pending_epoch_loss = state_.epoch_loss;
  // What it may still write is of one that is lost, perhaps of this step and cut otherwise.
  writing_ = {};
  writes_ = kept_ = {};
  state_.manifest_slices = 0;
  if (number >= count) return Status::Ok();
  writing_ = count > 1 ? observer_.BeginSlice(state_.step, number, mine.slices)
                       : observer_.BeginCheckpoint(PendingPoint(), mine.slices);
  written_.clear();
  writes_.step = state_.step;
  if (count > 1) writes_ = {state_.step, number, count};
  return Status::Ok();
}

// Does not wait. An error is this rank's: its peers go on without it, and write another.
Status TrainLoop::Impl::TakeWritten() {
  if (!writing_.valid()) return Status::Ok();
  if (writing_.wait_for(Duration::zero()) != std::future_status::ready) return Status::Ok();
  Result<storage::Digest> result = writing_.get();
  if (!result.ok()) {
    const CheckpointPart failed = std::exchange(writes_, {});
    return result.status().WithContext(fmt::format("checkpoint of step {}", failed.step));
  }
  written_ = *std::move(result);
  return Status::Ok();
}

// What its peers hear in a step's sums.
bool TrainLoop::Impl::SliceIsWritten() const {
  return writes_.IsSliceOf(state_.pending_step, state_.pending_slices) &&
         (!writing_.valid() || writing_.wait_for(Duration::zero()) == std::future_status::ready);
}

// All ranks: this one's part once it is durable, and those of the others, by rank.
Result<std::vector<TrainLoop::Impl::CheckpointShare>> TrainLoop::Impl::AwaitParts() {
  CheckpointShare mine;
  Status written;
  if (writes_.step == state_.pending_step) {
    mine.writes = writes_;
    if (writing_.valid()) writing_.wait();
    written = TakeWritten();
    if (written.ok()) mine.Set(written_);
  }
  LEPTON_ASSIGN_OR_RETURN(std::vector<CheckpointShare> all, TellEachOther(mine));
  LEPTON_RETURN_IF_ERROR(written);
  return all;
}

// All slices are durable, or are waited for: rank 0 begins the manifest. No slice is of a rank with
// other parameters than its peers: the digests of a step's sums come before what else they tell.
Status TrainLoop::Impl::GatherSlices() {
  LEPTON_ASSIGN_OR_RETURN(const std::vector<CheckpointShare> all, AwaitParts());
  std::vector<storage::Digest> slices(static_cast<size_t>(state_.pending_slices));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const CheckpointPart& its = all[rank].writes;
    if (!its.IsSliceOf(state_.pending_step, state_.pending_slices)) continue;
    slices[static_cast<size_t>(its.slice)] = all[rank].Get();
    if (all[rank].Get().empty()) {
      return Aborted(fmt::format("rank {} could not write its slice of the checkpoint of step {}",
                                 rank, state_.pending_step));
    }
  }
  if (std::any_of(slices.begin(), slices.end(), [](const auto& slice) { return slice.empty(); })) {
    return Aborted(
        fmt::format("a slice of the checkpoint of step {} is gone", state_.pending_step));
  }
  if (writes_.IsSliceOf(state_.pending_step, state_.pending_slices)) {
    kept_ = writes_;
    kept_digest_ = written_;
  }
  state_.manifest_slices = std::exchange(state_.pending_slices, 0);
  writes_ = {};
  if (!leader()) return Status::Ok();
  writing_ = observer_.BeginManifest(PendingPoint(), slices);
  written_.clear();
  writes_.step = state_.pending_step;
  return Status::Ok();
}

// Waits for the one that is on its way, whoever writes it.
Status TrainLoop::Impl::FinishCheckpoint() {
  if (state_.pending_step == 0) return Status::Ok();
  if (state_.pending_slices > 0) LEPTON_RETURN_IF_ERROR(GatherSlices());
  LEPTON_ASSIGN_OR_RETURN(const std::vector<CheckpointShare> all, AwaitParts());
  // A rank may still have a slice of it, if it has not heard that the manifest was begun.
  const auto writer = std::find_if(all.begin(), all.end(), [&](const CheckpointShare& its) {
    return its.writes.IsManifestOf(state_.pending_step);
  });
  if (writer != all.end() && writer->Get().empty()) {
    return Aborted(fmt::format("rank {} could not write the checkpoint of step {}",
                               writer - all.begin(), state_.pending_step));
  }
  const uint64_t step = std::exchange(state_.pending_step, 0);
  writes_ = {};
  if (writer == all.end()) return Status::Ok();
  state_.last_checkpoint = writer->Get();
  state_.good_step = step;
  return Status::Ok();
}

// As a group has met: whether somebody writes each part of the one that was on its way. One that
// lacks some is done again behind the next step, or behind this one if it is this one's. So is one
// that was written, but by ranks of which some are gone: nobody here knows whether a slice has come
// to the coordinator or was lost with a machine.
Status TrainLoop::Impl::FindPending() {
  if (state_.pending_step == 0) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const std::vector<CheckpointShare> all,
                          TellEachOther({.writes = writes_, .kept = kept_}));
  const int64_t count = std::max(state_.pending_slices, state_.manifest_slices);
  std::vector<bool> there(static_cast<size_t>(count));
  bool manifest = false;
  for (const CheckpointShare& its : all) {
    manifest = manifest || its.writes.IsManifestOf(state_.pending_step);
    for (const CheckpointPart& part : {its.writes, its.kept}) {
      if (!part.IsSliceOf(state_.pending_step, count)) continue;
      there[static_cast<size_t>(part.slice)] = true;
    }
  }
  const bool slices = std::find(there.begin(), there.end(), false) == there.end();
  if (manifest) {
    // Whoever writes it has all slices, though others have not heard of that.
    state_.pending_slices = 0;
    state_.manifest_slices = count;
    if (slices) return Status::Ok();
    LOG(INFO) << "a rank is gone that wrote a slice of the checkpoint of step "
              << state_.pending_step
              << ", perhaps before its worker had passed it on: another follows";
    state_.checkpoint_due = true;
    return Status::Ok();
  }
  if (state_.pending_slices > 0 && slices) {
    // If this rank alone had heard that all are durable, it has its own to tell of again.
    if (kept_.IsSliceOf(state_.pending_step, count)) {
      writing_ = {};
      writes_ = std::exchange(kept_, {});
      written_ = kept_digest_;
    }
    return Status::Ok();
  }
  LOG(WARNING) << "the checkpoint of step " << state_.pending_step
               << " is lost with a rank that wrote some of it; another follows";
  // Not before who has just joined has what it is to write a slice of.
  const bool all_whole = whole_ranks() == gang_->size();
  if (state_.pending_step == state_.step && all_whole) state_.step_closed = false;
  state_.checkpoint_due = true;
  state_.pending_step = 0;
  state_.pending_slices = 0;
  return Status::Ok();
}

Status TrainLoop::Impl::Salvage() {
  if (writing_.valid()) writing_.wait();
  if (TakeWritten().ok() && writes_.step > 0 && writes_.IsManifestOf(writes_.step)) {
    state_.good_step = writes_.step;
  }
  writes_ = {};
  if (!run_.checkpoints || !whole_ || state_.step <= state_.good_step) return Status::Ok();
  if (zero_ && !zero_->HoldsAll()) {
    LOG(WARNING) << "step " << state_.step << ": this rank's slices alone make no checkpoint";
    return Status::Ok();
  }
  const Result<storage::Digest> written =
      observer_
          .BeginCheckpoint({state_.step, MetricsOfStep(), SamplesUsed(), state_.epoch_loss},
                           AllSlices())
          .get();
  return written.status().WithContext(fmt::format("checkpoint of step {}", state_.step));
}

std::string TrainLoop::Impl::LastGood() const {
  return state_.last_checkpoint.empty() ? "no checkpoint yet"
                                        : fmt::format("last good checkpoint: step {} ({})",
                                                      state_.good_step, state_.last_checkpoint);
}

}  // namespace lepton::worker
