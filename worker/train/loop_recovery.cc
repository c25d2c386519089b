#include "worker/train/train_loop_impl.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>

#include "worker/train/divergence.h"
#include "worker/train/evaluation.h"
#include "worker/train/parameter_digest.h"

namespace lepton::worker {
namespace {

constexpr size_t kShareFloats = size_t{1} << 22;  // in one broadcast

}  // namespace

// The step in flight when a group broke is forgotten.
Result<uint64_t> TrainLoop::Impl::Enter(collectives::Communicator& gang, bool has_state) {
  if (exchange_) exchange_->Abandon();
  if (zero_gradients_) zero_gradients_->Abandon();
  if (zero_weights_) zero_weights_->Abandon();
  if (zero_) zero_->AbandonMoves();
  joining_->Close();
  gang_ = tensor_ ? &tensor_->data() : &gang;
  if (tensor_) LEPTON_RETURN_IF_ERROR(tensor_->ShareUndivided(run_.program));
  wishes_ = {};
  meets_to_part_ = false;
  parting_ = {};
  uint64_t bytes = 0;
  if (zero_) {
    LEPTON_ASSIGN_OR_RETURN(bytes, SettleParts(has_state));
  } else if (gang_->size() > 1) {
    LEPTON_ASSIGN_OR_RETURN(const int behind, Settle(has_state));
    for (const std::span<float> floats : SharedState()) {
      bytes += static_cast<uint64_t>(behind) * floats.size_bytes();
    }
  } else if (!has_state || !whole_) {
    return Internal("no rank has the training state");
  }
  took_part_ = true;
  if (!meets_to_part_) LEPTON_RETURN_IF_ERROR(FindPending());
  DealShards();
  if (leader() && run_.spec.gradients.compression != "none") {
    LOG(INFO) << fmt::format("gradients as {}: {} bytes a step, whole they are {}; begins anew",
                             run_.spec.gradients.compression, exchange_->payload_bytes(),
                             run_.program.gradients().size_bytes());
  }
  return bytes;
}

// What of the training state is in arrays, the same on all ranks.
std::vector<std::span<float>> TrainLoop::Impl::SharedState() {
  return {run_.program.weights(), rounds_ ? run_.outer->state() : run_.program.optimizer_state()};
}

// One copy of the state rules, the furthest: also at the start, in case that hosts differ in how
// they round while drawing the initial weights. Returns how many ranks were behind.
Result<int> TrainLoop::Impl::Settle(bool has_state) {
  const int64_t mine[] = {has_state && whole_ ? state_.place() : -1, took_part_ ? 1 : 0,
                          static_cast<int64_t>(DigestOf(run_.program.weights()))};
  const size_t ranks = static_cast<size_t>(gang_->size());
  std::vector<int64_t> all(std::size(mine) * ranks);
  LEPTON_RETURN_IF_ERROR(
      gang_->AllGather(mine, all.data(), std::size(mine), collectives::DataType::kInt64)
          .WithContext("places"));
  std::vector<int64_t> own(ranks), places(ranks);
  std::vector<uint64_t> digests(ranks);
  bool fresh = true;
  for (size_t rank = 0; rank < ranks; ++rank) fresh = fresh && all[rank * std::size(mine) + 1] == 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const int64_t* const its = &all[rank * std::size(mine)];
    own[rank] = its[0];
    // What a rank drew for itself counts only where nobody has begun.
    places[rank] = fresh || its[1] != 0 ? its[0] : -1;
    digests[rank] = static_cast<uint64_t>(its[2]);
  }
  const int64_t newest = *std::max_element(places.begin(), places.end());
  if (newest < 0) return Abort(Internal("no rank has the training state"));
  std::vector<int> furthest;
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (places[rank] == newest) furthest.push_back(static_cast<int>(rank));
  }
  const int behind = static_cast<int>(ranks - furthest.size());
  const bool alike = CountDigests(digests, furthest).agree();
  if (!fresh) LEPTON_RETURN_IF_ERROR(CheckEqual(digests, furthest));
  if (!fresh && behind > 0 && JoinsBesideSteps(own, furthest)) {
    whole_ = places[static_cast<size_t>(gang_->rank())] == newest;
    LEPTON_RETURN_IF_ERROR(ShareLoopState(furthest[0]).WithContext("training state"));
    joining_->Begin(*gang_, static_cast<int>(furthest.size()));
  } else if (behind > 0 || !alike) {
    const bool same = places[static_cast<size_t>(gang_->rank())] == newest && alike;
    LEPTON_RETURN_IF_ERROR(Share(furthest[0], same, mine[0] >= 0).WithContext("training state"));
  } else if (!fresh) {
    // Some may have done more than others of what follows the step.
    LEPTON_RETURN_IF_ERROR(ShareLoopState(furthest[0]).WithContext("training state"));
  }
  return behind;
}

// The same of a state in slices. Returns the bytes that went to ranks which lacked them.
Result<uint64_t> TrainLoop::Impl::SettleParts(bool has_state) {
  const int64_t place = has_state || has_loop_state_ ? state_.place() : -1;
  leaves_ = observer_.LeaveRequested();
  // Of whole weights; with stage 3 those that are drawn, by ranks for which they count.
  uint64_t digest = 0;
  if (!zero_weights_) digest = DigestOf(run_.program.weights());
  if (zero_weights_ && !zero_weights_->serves() && place >= 0) {
    digest = DigestOfWeights(run_.program);
  }
  LEPTON_ASSIGN_OR_RETURN(const ZeroState::Meeting meeting,
                          zero_->Meet(*gang_, {.place = place,
                                               .took_part = took_part_ || has_loop_state_,
                                               .digest = digest,
                                               .norm = state_.gradient_norm,
                                               .leaves = leaves_}));
  if (!meeting.fresh && !meeting.whole.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckEqual(meeting.digests, meeting.whole));
  }
  if (meeting.follow) {
    LOG(INFO) << "step " << meeting.step << " was committed: this rank applies it too";
    zero_->Update(state_.step, meeting.norm, GradientOfParts());
    state_.gradient_norm = meeting.norm;
    Advance(reduced_);
    // Those that had applied it have forgotten who wished to go: whoever still does says so anew.
    wishes_ = {};
  }
  // Also at one place some may have done more than others of what follows the step.
  if (meeting.behind > 0 || !meeting.fresh) {
    LEPTON_RETURN_IF_ERROR(ShareLoopState(meeting.source).WithContext("training state"));
    // At the start what a rank has is nobody's but its own until all have met; then it counts.
    has_loop_state_ = has_loop_state_ || !meeting.fresh;
  }
  uint64_t moved = 0;
  if (zero_->JoinsBesideSteps(meeting)) {
    // What follows a step, or ends the run, needs the weights before the next step brings them.
    const bool at_once = !state_.step_closed || state_.step >= run_.last_step;
    LEPTON_ASSIGN_OR_RETURN(moved, zero_->ShareAmongHolders(*gang_, meeting, at_once));
  } else {
    LEPTON_ASSIGN_OR_RETURN(moved, zero_->ShareWeights(*gang_, meeting));
    LEPTON_ASSIGN_OR_RETURN(meets_to_part_, PartAsTheyMeet(meeting));
    if (meets_to_part_) return moved;
    LEPTON_ASSIGN_OR_RETURN(const uint64_t state, zero_->ShareState(*gang_, meeting));
    moved += state;
  }
  if (zero_weights_) LEPTON_RETURN_IF_ERROR(VisitWeights(meeting));
  const StateBytes mine = bytes();
  LOG(INFO) << fmt::format(
      "parallel.zero {}: rank {} of {}, buddy of rank {}, keeps {} bytes of weights, {} of "
      "gradients and {} of the optimizer's state, which has {}{}",
      run_.spec.parallel.zero, gang_->rank(), gang_->size(),
      MirroredBy(gang_->rank(), gang_->size()), mine.weights, mine.gradients, mine.optimizer,
      zero_->state_elements() * static_cast<int64_t>(sizeof(float)),
      zero_->joining() ? "; ranks join, and get theirs beside the steps" : "");
  return moved;
}

// Stage 3: from here on the rank has the weights of its slices alone. In the first group nobody
// lets go of the others before all know that all have theirs, and say so if they meet again.
Status TrainLoop::Impl::VisitWeights(const ZeroState::Meeting& meeting) {
  zero_weights_->EnterGroup(*gang_);
  if (zero_weights_->serves()) return Status::Ok();
  if (meeting.fresh) {
    took_part_ = has_loop_state_ = true;
    if (gang_->size() > 1) LEPTON_RETURN_IF_ERROR(gang_->Barrier());
  }
  zero_weights_->Serve(run_.program);
  zero_->DropWhole();
  return Status::Ok();
}

// Weights, optimiser and loop state of one rank, to all, also to those that have the `same` bits.
// When the source dies meanwhile, they still have them; and who has a state of its `own`, of the
// step before or drawn otherwise, has that again: perhaps nobody else that lives has any.
Status TrainLoop::Impl::Share(int source, bool same, bool own) {
  const bool gets = !same && gang_->rank() != source;
  std::vector<std::vector<float>> before;
  for (const std::span<float> floats : SharedState()) {
    if (gets && own) before.emplace_back(floats.begin(), floats.end());
  }
  whole_ = own && !gets;
  const Status shared = ShareArrays(source, gets);
  for (size_t i = 0; i < before.size() && !shared.ok(); ++i) {
    std::copy(before[i].begin(), before[i].end(), SharedState()[i].begin());
  }
  whole_ = own || shared.ok();
  return shared;
}

// What is not for this rank must not touch what it has: a broken group leaves anything in a buffer.
Status TrainLoop::Impl::ShareArrays(int source, bool gets) {
  std::vector<float> passing;
  for (const std::span<float> floats : SharedState()) {
    for (size_t at = 0; at < floats.size(); at += kShareFloats) {
      const std::span<float> mine = floats.subspan(at, std::min(kShareFloats, floats.size() - at));
      const bool in_place = gets || gang_->rank() == source;
      if (!in_place) passing.resize(mine.size());
      LEPTON_RETURN_IF_ERROR(gang_->Broadcast(in_place ? mine.data() : passing.data(), mine.size(),
                                              collectives::DataType::kFloat32, source));
    }
  }
  return ShareLoopState(source);
}

Status TrainLoop::Impl::ShareLoopState(int source) {
  using collectives::DataType;
  std::string packed = state_.Pack();
  int64_t size = static_cast<int64_t>(packed.size());
  LEPTON_RETURN_IF_ERROR(gang_->Broadcast(&size, 1, DataType::kInt64, source));
  packed.resize(static_cast<size_t>(size));
  LEPTON_RETURN_IF_ERROR(gang_->Broadcast(packed.data(), packed.size(), DataType::kUInt8, source));
  LEPTON_ASSIGN_OR_RETURN(state_, LoopState::Unpack(packed));
  return Status::Ok();
}

}  // namespace lepton::worker
