#include "worker/train/train_loop_impl.h"

#include <fmt/format.h>

#include "worker/train/divergence.h"
#include "worker/train/parameter_digest.h"

namespace lepton::worker {

// Collective when the digests differ, which all ranks see alike. kDataLoss on ranks that are not to
// be trusted, which end; kAborted on the others, which go on without them.
Status TrainLoop::Impl::CheckEqual(std::span<const uint64_t> digests,
                                   std::span<const int> counted) {
  const Census census = CountDigests(digests, counted);
  if (census.agree()) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(const std::string tensor, FindTensor(census, run_.program, *gang_));
  // A job's last word names its newest checkpoint. As a group meets, not all know of it; nor do the
  // other mates of a tensor gang come to ask. Slices of ranks that do not agree make none.
  const bool told = counted.empty() && !tensor_ && state_.pending_slices == 0;
  if (census.agreeing == 0 && told) LEPTON_RETURN_IF_ERROR(FinishCheckpoint());
  return PartUnequal(census, tensor);
}

// As the others do, where ranks differ in `tensor`.
Status TrainLoop::Impl::PartUnequal(const Census& census, const std::string& tensor) {
  Divergence found{.step = state_.step + 1,
                   .tensor = tensor,
                   .agreeing = census.agreeing,
                   .ranks = gang_->size()};
  if (census.IsOdd(gang_->rank())) {
    observer_.Diverged(found);
    return DataLoss(found.agreeing > 0
                        ? fmt::format("its parameters are not those of {} of the {} ranks at step "
                                      "{}: {} differs",
                                      found.agreeing, found.ranks, found.step, tensor)
                        : fmt::format("the {} ranks do not hold the same parameters at step {}, "
                                      "and no majority does: {} differs; {}",
                                      found.ranks, found.step, tensor, LastGood()));
  }
  if (census.agreeing == 0) return DataLoss("the ranks that went furthest do not agree");
  // What the odd one wrote or helped to measure behind the last step may be wrong too: done again
  // by those that go on.
  const bool measured = state_.evaluated_step == state_.step;
  if (measured) state_.evaluated_step = LoopState::kNever;
  if (measured || census.IsOdd(0)) state_.step_closed = false;
  return Aborted(fmt::format("rank {} of {} holds other parameters at step {}: {} differs",
                             census.odd[0], found.ranks, found.step, tensor));
}

// What flipped since the last reduction must not become the model.
Status TrainLoop::Impl::CheckEqualAtEnd() {
  if (gang_->size() == 1) return Status::Ok();
  if (zero_weights_) LEPTON_RETURN_IF_ERROR(GatherParts());
  const auto mine = static_cast<int64_t>(DigestOf(run_.program.weights()));
  std::vector<uint64_t> all(static_cast<size_t>(gang_->size()));
  LEPTON_RETURN_IF_ERROR(gang_->AllGather(&mine, all.data(), 1, collectives::DataType::kInt64)
                             .WithContext("digests of the parameters"));
  return CheckEqual(all);
}

}  // namespace lepton::worker
