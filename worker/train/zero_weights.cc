#include "worker/train/zero_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

using collectives::DataType;

// Elements that are gathered at once: the staging buffers are of this size, and one n-th of it.
constexpr int64_t kMostGathered = int64_t{1} << 22;

// What is gathered first of so many elements.
Elements NextOf(int64_t begin, int64_t size) {
  return {begin, begin + std::min(size, kMostGathered)};
}
constexpr size_t kHeader = 2;  // floats: the first element, as 64 bits

// The parts of a rank's slice in a range, in order.
std::vector<Elements> PartsIn(const ZeroLayout& layout, int rank, const Elements& range) {
  std::vector<Elements> parts;
  for (int stripe = 0; stripe < layout.stripes(); ++stripe) {
    const Elements at = layout.part(rank, stripe);
    const Elements both{std::max(at.begin, range.begin), std::min(at.end, range.end)};
    if (!both.empty()) parts.push_back(both);
  }
  return parts;
}

int64_t SizeOf(const std::vector<Elements>& parts) {
  int64_t size = 0;
  for (const Elements& part : parts) size += part.size();
  return size;
}

}  // namespace

ZeroWeights::~ZeroWeights() {
  Abandon();
  if (serves()) program_->VisitWeights(nullptr, bucket_bytes_);
}

// A stripe is what all ranks have an equal share of.
void ZeroWeights::Serve(nn::TrainingProgram& program) {
  program_ = &program;
  const ZeroLayout& layout = state_.layout();
  const int64_t stripe = layout.elements() * static_cast<int64_t>(sizeof(float)) / layout.stripes();
  program.VisitWeights(this, std::max(stripe, bucket_bytes_));
}

void ZeroWeights::Abandon() {
  if (handle_ != nullptr) (void)handle_->Wait(Deadline::Never());
  handle_.reset();
}

Status ZeroWeights::Bring(int64_t begin, std::span<float> to) {
  const int64_t end = begin + static_cast<int64_t>(to.size());
  for (int64_t at = begin; at < end; at += kMostGathered) {
    const Elements range = NextOf(at, end - at);
    float* const place = to.data() + (at - begin);
    if (!state_.layout().everywhere()) {
      LEPTON_RETURN_IF_ERROR(Finish(range, place).WithContext("weights"));
      continue;
    }
    for (int rank = 0; rank < gang_->size(); ++rank) {
      for (const Elements& part : PartsIn(state_.layout(), rank, range)) {
        const std::span<const float> mine = state_.HeldWeights(part);
        std::copy(mine.begin(), mine.end(), place + (part.begin - range.begin));
      }
    }
  }
  return Status::Ok();
}

void ZeroWeights::Expect(int64_t begin, int64_t size) {
  if (!state_.layout().everywhere() && handle_ == nullptr) Start(NextOf(begin, size));
}

void ZeroWeights::Start(const Elements& range) {
  const ZeroLayout& layout = state_.layout();
  int64_t most = 0;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    most = std::max(most, SizeOf(PartsIn(layout, rank, range)));
  }
  under_way_ = range;
  each_ = kHeader + static_cast<size_t>(most);
  staging_.resize(each_);
  gathered_.resize(each_ * static_cast<size_t>(layout.ranks()));
  std::memcpy(staging_.data(), &range.begin, sizeof(range.begin));
  float* next = staging_.data() + kHeader;
  for (const Elements& part : PartsIn(layout, gang_->rank(), range)) {
    const std::span<const float> mine = state_.HeldWeights(part);
    next = std::copy(mine.begin(), mine.end(), next);
  }
  handle_ = gang_->AllGatherAsync(staging_.data(), gathered_.data(), each_, DataType::kFloat32);
}

Status ZeroWeights::Finish(const Elements& range, float* to) {
  // All expect the same, so that all have to ask again alike.
  if (handle_ != nullptr && !(under_way_ == range)) Abandon();
  if (handle_ == nullptr) Start(range);
  const ZeroLayout& layout = state_.layout();
  {
    // In the middle of a pass, but for peers (zero_gradients.cc).
    const progress::Waiting waiting;
    const Status gathered = std::exchange(handle_, nullptr)->Wait(Deadline::Never());
    LEPTON_RETURN_IF_ERROR(gathered);
  }
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const float* from = gathered_.data() + each_ * static_cast<size_t>(rank);
    int64_t its = 0;
    std::memcpy(&its, from, sizeof(its));
    if (its != range.begin) {
      return Internal(fmt::format("rank {} reads weights from element {}, rank {} from {}",
                                  gang_->rank(), range.begin, rank, its));
    }
    from += kHeader;
    for (const Elements& part : PartsIn(layout, rank, range)) {
      std::copy_n(from, part.size(), to + (part.begin - range.begin));
      from += part.size();
    }
  }
  return Status::Ok();
}

Status ZeroWeights::BeginForward() {
  return AnyOf(true).status();
}

Result<bool> ZeroWeights::OthersForward() {
  return AnyOf(false);
}

// Before each pass of an evaluation all say whether they have one.
Result<bool> ZeroWeights::AnyOf(bool mine) {
  if (state_.layout().everywhere()) return false;  // all hold everything: nobody needs to take part
  const int64_t say = mine ? 1 : 0;
  std::vector<int64_t> all(static_cast<size_t>(gang_->size()));
  const progress::Waiting waiting;
  LEPTON_RETURN_IF_ERROR(
      gang_->AllGather(&say, all.data(), 1, DataType::kInt64).WithContext("who evaluates"));
  return std::any_of(all.begin(), all.end(), [](int64_t one) { return one != 0; });
}

}  // namespace lepton::worker
