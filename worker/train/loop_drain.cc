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
    return Part();
  }
  if (wishes_.regroup == 0) return Status::Ok();
  parting_.planned = true;
  return Aborted(fmt::format("the group ended after step {}, for a rank joins", state_.step));
}

// Of those that leave at once, both may hold the same slice.
Status TrainLoop::Impl::HandOver() {
  const int64_t mine = leaves_ ? 0 : 1;
  std::vector<int64_t> all(static_cast<size_t>(gang_->size()));
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(&mine, all.data(), 1, collectives::DataType::kInt64)
                             .WithContext("who leaves"));
  const std::vector<bool> stays(all.begin(), all.end());
  LEPTON_RETURN_IF_ERROR(zero_->HandOver(*gang_, stays));
  SetLeft(stays);
  return Status::Ok();
}

// All of what they held is with others.
void TrainLoop::Impl::SetLeft(const std::vector<bool>& stays) {
  for (size_t rank = 0; rank < stays.size(); ++rank) {
    if (!stays[rank]) parting_.left.push_back(static_cast<int>(rank));
  }
}

// Some of a state's holders leave, and say so as they meet the others for the last time: there is
// no step to wait for. True when the group was for this alone. When all leave they write a
// checkpoint together first, as behind a step, since no rank has the state to do it alone.
Result<bool> TrainLoop::Impl::PartAsTheyMeet(const ZeroState::Meeting& meeting) {
  const int leaving = meeting.leaving();
  if (leaving == 0 || state_.step == run_.last_step) return false;
  wishes_.leave = leaving;
  if (leaving == gang_->size()) {
    parting_.saved = state_.step_closed && state_.good_step == state_.step;
    if (parting_.saved) return true;
    state_.stopping = true;
    state_.step_closed = false;
    return false;
  }
  LEPTON_RETURN_IF_ERROR(zero_->HandOver(*gang_, meeting).WithContext("slices of who leaves"));
  SetLeft(meeting.stays);
  return true;
}

Status TrainLoop::Impl::Part() {
  parting_.planned = true;
  if (leaves_) return Cancelled(fmt::format("left the gang after step {}", state_.step));
  return Aborted(
      fmt::format("{} of {} ranks left after step {}", wishes_.leave, gang_->size(), state_.step));
}

}  // namespace lepton::worker
