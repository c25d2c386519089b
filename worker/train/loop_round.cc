#include "runtime/base/progress.h"
#include "worker/train/train_loop_impl.h"

namespace lepton::worker {

// This rank's shards of the open round, one after another; what a broken group left of them is not
// done again. Returns the loss over them. The program has what all ranks share again.
Result<SplitLoss> TrainLoop::Impl::LocalRound() {
  exchange_->Begin(*gang_, static_cast<int>(my_shards_.size()), /*pieces=*/1);
  rounds_->Begin(state_.step, /*keep_parts=*/gang_->size() > 1);
  loss_fold_.Reset();
  SampleCount used;
  for (const int shard : my_shards_) {
    const Status done = rounds_->Has(shard) ? Status::Ok() : ShardRound(shard);
    if (!done.ok()) {
      rounds_->Restore();
      return done;
    }
    used += rounds_->SamplesOf(shard);
    loss_fold_.Add(Split(rounds_->Give(shard)));
    exchange_->After();
  }
  used_ = used;
  const progress::Computing computing("step", CommitEnd());
  rounds_->Restore();
  LEPTON_RETURN_IF_ERROR(observer_.Computed(CommitEnd(), run_.program));
  SplitLoss sum;
  loss_fold_.Finish(sum);
  return sum;
}

Status TrainLoop::Impl::ShardRound(int shard) {
  const uint64_t end = CommitEnd();
  feeder_.emplace(source_, run_.program.signature(),
                  BatchFeeder::Plan{state_.step, end, MicroBatchesOf({&shard, 1}, pieces_)});
  rounds_->BeginShard();
  used_ = {};
  for (uint64_t step = state_.step; step < end; ++step) {
    const progress::Computing computing("step", step + 1);
    nn::LossSum loss;
    for (int piece = 0; piece < pieces_; ++piece) {
      LEPTON_ASSIGN_OR_RETURN(const nn::LossSum more, PieceGradient(step, shard, piece));
      rounds_->AddPiece(piece);
      loss.sum += more.sum;
      loss.count += more.count;
    }
    rounds_->Step(step, loss);
    if (step + 1 < end) LEPTON_RETURN_IF_ERROR(observer_.Computed(step + 1, run_.program));
  }
  rounds_->EndShard(shard, used_);
  return Status::Ok();
}

// What is committed at once, a round or without local_sgd a step: its end when it is in flight, and
// where the one before began.
uint64_t TrainLoop::Impl::CommitEnd() const {
  return rounds_ ? rounds_->EndOf(state_.step, run_.last_step) : state_.step + 1;
}

uint64_t TrainLoop::Impl::CommitBegin() const {
  if (state_.step == 0) return 0;
  return rounds_ ? rounds_->BeginOf(state_.step) : state_.step - 1;
}

// Whether the last commit reached, or passed, a multiple of `every` steps.
bool TrainLoop::Impl::Passed(uint64_t every) const {
  return state_.step / every != CommitBegin() / every;
}

}  // namespace lepton::worker
