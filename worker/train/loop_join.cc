// Joiners. docs/decisions/join.md says why it is done so.
#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "collectives/tree_shape.h"
#include "worker/train/parameter_digest.h"
#include "worker/train/train_loop_impl.h"

namespace lepton::worker {
namespace {

int64_t FloatsIn(const std::vector<std::span<float>>& arrays) {
  int64_t elements = 0;
  for (const std::span<float> array : arrays) elements += static_cast<int64_t>(array.size());
  return elements;
}

constexpr int64_t kFloat = sizeof(float);

}  // namespace

// Half of what a step's sums are: where steps wait for the network alone, that of a join takes some
// half longer, and where they compute it hides behind that. A round of local_sgd computes for so
// long that all of the state does. In elements.
int64_t TrainLoop::Impl::JoinPiece() const {
  if (rounds_) return std::numeric_limits<int64_t>::max() / 2;
  const int64_t sums = exchange_ ? exchange_->payload_bytes() : zero_->layout().elements() * kFloat;
  return std::max(run_.spec.gradients.piece_bytes(), sums / 2) / kFloat;
}

// The weights, and behind them what the optimiser keeps, cut into columns of the trained ones: what
// an element is updated with travels with it.
std::vector<std::span<float>> TrainLoop::Impl::StateColumns() {
  std::vector<std::span<float>> columns = {run_.program.weights()};
  if (rounds_) {
    columns.push_back(run_.outer->state());
    return columns;
  }
  const std::span<float> state = run_.program.optimizer_state();
  const auto count = static_cast<size_t>(run_.program.state_per_element());
  for (size_t i = 0; i < count; ++i) {
    columns.push_back(state.subspan(i * (state.size() / count), state.size() / count));
  }
  return columns;
}

// Whether those that lack the state get it while the others go on. Not a rank that has one of its
// own, a step behind; nor a state that is there as soon as it is asked for. All ranks see alike.
bool TrainLoop::Impl::JoinsBesideSteps(std::span<const int64_t> own,
                                       std::span<const int> furthest) {
  for (size_t rank = 0; rank < own.size(); ++rank) {
    const bool whole = rank < furthest.size();
    if (whole ? furthest[rank] != static_cast<int>(rank) : own[rank] >= 0) return false;
  }
  return FloatsIn(SharedState()) * kFloat > run_.spec.gradients.piece_bytes();
}

// To compute a rank needs the weights.
int TrainLoop::Impl::whole_ranks() const {
  if (joining_->open()) return joining_->whole();
  return zero_ ? zero_->with_whole_weights(gang_->size()) : gang_->size();
}

// To the ranks that have the state; they alone hold leaves of the sums.
void TrainLoop::Impl::DealShards() {
  const int ranks = dealt_among_ = whole_ranks();
  gang_->HoldLeaves(ranks);
  if (zero_gradients_) {
    micro_batches_ = ZeroGradients::MicroBatchesOf(gang_->rank(), ranks, shards_, pieces_);
  } else {
    const auto [begin, end] = collectives::LeavesOf(gang_->rank(), ranks, shards_);
    my_shards_.resize(static_cast<size_t>(end - begin));
    std::iota(my_shards_.begin(), my_shards_.end(), begin);
    micro_batches_ = MicroBatchesOf(my_shards_, pieces_);
  }
  if (exchange_) exchange_->EnterGroup(static_cast<int>(my_shards_.size()), shards_);
  feeder_.reset();
  if (rounds_) return;  // each shard's round has a feeder of its own
  feeder_.emplace(source_, run_.program.signature(),
                  BatchFeeder::Plan{state_.step, run_.last_step, micro_batches_});
}

// Behind a step. Who leaves must not take the state along, and at the end all have it. Of a state
// in slices each stripe that went over is a cut-over of its own, behind the step that took it.
Status TrainLoop::Impl::MayCutOver() {
  if (zero_ && dealt_among_ != whole_ranks()) DealShards();
  if (!joining_->open()) return Status::Ok();
  const bool waits = joining_->done() || wishes_.leave > 0 || state_.step >= run_.last_step;
  return waits ? FinishJoin() : Status::Ok();
}

// Before all ranks are asked for something.
Status TrainLoop::Impl::FinishJoin() {
  if (!joining_->open()) return Status::Ok();
  LEPTON_RETURN_IF_ERROR(joining_->SendRest());
  return CutOver();
}

// The joiners have all of the state. One whose bits are others is refused, by name.
Status TrainLoop::Impl::CutOver() {
  const size_t ranks = static_cast<size_t>(gang_->size());
  std::vector<int64_t> mine;
  for (const std::span<float> array : SharedState()) {
    mine.push_back(static_cast<int64_t>(DigestOf(array)));
  }
  std::vector<int64_t> all(mine.size() * ranks);
  LEPTON_RETURN_IF_ERROR(
      gang_->AllGather(mine.data(), all.data(), mine.size(), collectives::DataType::kInt64)
          .WithContext("digests of the joiners' state"));
  Census census;
  bool weights_differ = false;
  for (size_t rank = static_cast<size_t>(joining_->whole()); rank < ranks; ++rank) {
    const auto its = all.begin() + static_cast<std::ptrdiff_t>(rank * mine.size());
    if (std::equal(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(mine.size()), its)) {
      continue;
    }
    census.odd.push_back(static_cast<int>(rank));
    weights_differ = weights_differ || all[0] != *its;
  }
  census.agreeing = static_cast<int>(ranks - census.odd.size());
  if (!census.agree()) {
    std::string tensor = "the optimizer's state";
    if (weights_differ) {
      LEPTON_ASSIGN_OR_RETURN(tensor, FindTensor(census, run_.program, *gang_));
    }
    return PartUnequal(census, tensor);
  }
  if (leader()) {
    LOG(INFO) << fmt::format("{} of {} ranks have joined: they have all of the state at step {}",
                             gang_->size() - joining_->whole(), gang_->size(), state_.step);
  }
  joining_->Close();
  whole_ = true;
  DealShards();
  return Status::Ok();
}

}  // namespace lepton::worker
