#include "worker/train/train_loop_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/progress.h"
#include "worker/train/evaluation.h"
#include "worker/train/parameter_digest.h"

namespace lepton::worker {
namespace {

void Accumulate(const nn::LossSum& loss, nn::LossSum& total) {
  total.sum += loss.sum;
  total.count += loss.count;
}

}  // namespace

Status TrainLoop::Impl::TakeStep() {
  if (joining_->open()) joining_->SendPiece();
  if (zero_) zero_->BeginMoves(*gang_, JoinPiece() * static_cast<int64_t>(sizeof(float)));
  const Result<SplitLoss> local_loss = ComputeStep();
  if (!local_loss.ok()) {
    return Abort(local_loss.status().WithContext(fmt::format("step {}", state_.step + 1)));
  }
  LEPTON_ASSIGN_OR_RETURN(StepSums sums, ReduceGradient(*local_loss));
  LEPTON_RETURN_IF_ERROR(CheckEqual(std::span(sums.digests).first(whole_ranks())));
  if (tensor_) LEPTON_RETURN_IF_ERROR(tensor_->AgreeOnStep(run_.program, sums));
  if (joining_->open() ? joining_->arrives() : zero_ && zero_->arrives()) observer_.StateArrives();
  if (joining_->open()) LEPTON_RETURN_IF_ERROR(joining_->TakePiece());
  if (!std::isfinite(sums.loss.sum)) return NotFinite("loss", sums.loss.sum);
  observer_.Reduced();
  if (zero_) {
    LEPTON_RETURN_IF_ERROR(zero_->TakeMoves());
    reduced_ = sums;
    LEPTON_ASSIGN_OR_RETURN(state_.gradient_norm, ApplyParts());
  } else if (rounds_) {
    const progress::Computing computing("update", state_.step + 1);
    state_.gradient_norm = rounds_->norm();
    if (std::isfinite(state_.gradient_norm)) rounds_->Apply(sums.loss.count);
  } else {
    const progress::Computing computing("update", state_.step + 1);
    state_.gradient_norm =
        run_.program.ApplyGradients(state_.step, 1.0 / std::max(1.0, sums.loss.count));
    if (tensor_) LEPTON_RETURN_IF_ERROR(tensor_->status());
  }
  if (!std::isfinite(state_.gradient_norm)) return NotFinite("gradient norm", state_.gradient_norm);
  Advance(sums);
  if (zero_) LEPTON_RETURN_IF_ERROR(GatherParts());
  observer_.Committed(state_.step);
  return Status::Ok();
}

Status TrainLoop::Impl::Abort(Status cause) {
  return tensor_ ? tensor_->Abort(std::move(cause)) : AbortGang(*gang_, std::move(cause));
}

// Each piece has its own random stream, numbered on over all shards.
Result<nn::LossSum> TrainLoop::Impl::PieceGradient(uint64_t step, int shard, int piece) {
  LEPTON_ASSIGN_OR_RETURN(const BatchBuffer* const batch, feeder_->Next());
  used_ += batch->used;
  has_rows_ = batch->rows() > 0;
  if (!has_rows_) {
    const std::span<float> gradients = run_.program.gradients();
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    return nn::LossSum{};
  }
  return run_.program.ForwardBackward(batch->batch(), batch->targets(), step,
                                      static_cast<uint32_t>(shard * pieces_ + piece));
}

// This rank's micro-batches; their gradients begin to travel during the last of them. Returns the
// loss over its shards.
Result<SplitLoss> TrainLoop::Impl::LocalGradient() {
  exchange_->Begin(*gang_, static_cast<int>(my_shards_.size()), pieces_);
  loss_fold_.Reset();
  for (const int shard : my_shards_) {
    nn::LossSum loss;
    for (int piece = 0; piece < pieces_; ++piece) {
      LEPTON_ASSIGN_OR_RETURN(const nn::LossSum more, PieceGradient(state_.step, shard, piece));
      exchange_->After();
      Accumulate(more, loss);
    }
    loss_fold_.Add(Split(loss));
  }
  SplitLoss sum;
  loss_fold_.Finish(sum);
  return sum;
}

// The same where nobody keeps a gradient, nor a loss: they go to all as they are computed.
Result<SplitLoss> TrainLoop::Impl::PassGradients() {
  zero_gradients_->Begin(*gang_, zero_->next_layout(), whole_ranks());
  for (const auto [shard, piece] : micro_batches_) {
    LEPTON_ASSIGN_OR_RETURN(const nn::LossSum loss, PieceGradient(state_.step, shard, piece));
    zero_gradients_->After(loss, has_rows_);
  }
  return SplitLoss{};
}

// From here to the reduction a rank waits for nobody.
Result<SplitLoss> TrainLoop::Impl::ComputeStep() {
  if (rounds_) return LocalRound();
  used_ = {};
  const progress::Computing computing("step", state_.step + 1);
  Result<SplitLoss> local_loss = zero_gradients_ ? PassGradients() : LocalGradient();
  const Status computed = observer_.Computed(state_.step + 1, run_.program);
  return computed.ok() ? local_loss : computed;
}

Result<StepSums> TrainLoop::Impl::ReduceGradient(const SplitLoss& local_loss) {
  // One joiner after another: who is about to have the state does not begin anew.
  const bool joining = joining_->open() || (zero_ && zero_->joining());
  const Wishes wishes{observer_.StopRequested(), observer_.LeaveRequested(),
                      !joining && observer_.RegroupRequested(), SliceIsWritten()};
  leaves_ = wishes.leave;
  const RankWord word{wishes, used_, gang_->size() > 1 ? DigestOf(run_.program.weights()) : 0};
  if (zero_gradients_) return zero_gradients_->Reduce(word);
  const size_t more = rounds_ ? LocalRounds::kTailSize : 0;
  tail_.resize(more + TailSize(gang_->size()));
  const std::span<float> of_rounds = std::span(tail_).first(more);
  const std::span<float> of_step = std::span(tail_).subspan(more);
  WriteTail(of_step, local_loss, gang_->rank(), word);
  if (rounds_) rounds_->WriteTail(of_rounds);
  LEPTON_RETURN_IF_ERROR(exchange_->Reduce(tail_));
  if (rounds_) rounds_->ReadTail(of_rounds);
  return ReadTail(of_step);
}

// Behind the update.
void TrainLoop::Impl::Advance(const StepSums& sums) {
  if (state_.step == 0 || Passed(source_.steps_per_epoch())) state_.epoch_loss = {};
  Accumulate(sums.loss, state_.epoch_loss);
  Accumulate(sums.loss, state_.report_loss);
  state_.samples += sums.samples;
  const MonotonicTime now = RealClock().Now();
  state_.seconds += std::chrono::duration<double>(now - stepped_).count();
  stepped_ = now;
  for (const uint64_t end = CommitEnd(); state_.step < end; ++state_.step) {
    samples_ += source_.BatchRows(state_.step);
  }
  state_.step_closed = false;
  // If all leave, nobody is left who could go on.
  state_.stopping = sums.stop > 0 || sums.leave == static_cast<int>(sums.digests.size());
  wishes_ = sums;
}

ZeroState::GradientOf TrainLoop::Impl::GradientOfParts() {
  return [this](const Elements& part) -> std::span<const float> {
    if (zero_gradients_) return zero_gradients_->Of(part);
    return run_.program.gradients().subspan(static_cast<size_t>(part.begin),
                                            static_cast<size_t>(part.size()));
  };
}

// The update of this rank's slices; returns the gradient's norm, and where that is not finite does
// nothing.
Result<double> TrainLoop::Impl::ApplyParts() {
  zero_->Reduced(1.0 / std::max(1.0, reduced_.loss.count));
  LEPTON_ASSIGN_OR_RETURN(const double norm, zero_->AgreeOnNorm(*gang_, GradientOfParts()));
  const progress::Computing computing("update", state_.step + 1);
  if (std::isfinite(norm)) zero_->Update(state_.step, norm, GradientOfParts());
  return norm;
}

// Two hold the same slice, and nobody can say which of them is right.
Status TrainLoop::Impl::GatherParts() {
  LEPTON_ASSIGN_OR_RETURN(const int slice, zero_->GatherWeights(*gang_));
  if (slice < 0) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const ZeroState::Difference found, zero_->FindTensor(slice, *gang_));
  observer_.Diverged({.step = state_.step, .tensor = found.tensor, .ranks = gang_->size()});
  return DataLoss(fmt::format(
      "ranks {} and {}, which mirror each other, do not hold the same parameters after step {}: {} "
      "differs; {}",
      slice, found.buddy, state_.step, found.tensor, LastGood()));
}

// Each example was used once in each epoch. On all ranks, which see the same sums.
Status TrainLoop::Impl::CheckSamples() const {
  const auto of_epoch = static_cast<uint64_t>(source_.steps_per_epoch());
  if (!state_.samples_counted) return Status::Ok();
  const uint64_t rows = source_.RowsBefore(state_.step);
  if (state_.samples.rows != rows) {
    return Internal(
        fmt::format("after step {}, {} examples were used; there were {}: this is an "
                    "error of the program",
                    state_.step, state_.samples.rows, rows));
  }
  if (state_.step % of_epoch != 0) return Status::Ok();
  const uint64_t epochs = state_.step / of_epoch;
  const SampleCount wanted = SampleCount::OfEpochs(epochs, source_.examples().rows());
  if (state_.samples == wanted) return Status::Ok();
  return Internal(fmt::format(
      "after epoch {}, {} examples were used, whose numbers add to {}; each once an epoch are {}, "
      "whose numbers add to {}: this is an error of the program",
      epochs, state_.samples.rows, state_.samples.ids, wanted.rows, wanted.ids));
}

// On all ranks, which see the same sums.
Status TrainLoop::Impl::NotFinite(std::string_view what, double value) {
  LEPTON_RETURN_IF_ERROR(FinishCheckpoint());  // which the message names
  return FailedPrecondition(
      fmt::format("{} is {} at step {}; {}; a lower optimizer.lr or clip_norm may help", what,
                  std::isnan(value) ? "nan" : "infinite", state_.step + 1, LastGood()));
}

}  // namespace lepton::worker
