#include "worker/train/state_stream.h"

#include <algorithm>
#include <utility>

namespace lepton::worker {

using collectives::DataType;

StateStream::StateStream(Columns columns, int64_t piece)
    : columns_(std::move(columns)), piece_(piece) {}

void StateStream::Begin(collectives::Communicator& gang, int whole) {
  Close();
  gang_ = &gang;
  whole_ = whole;
  elements_ = static_cast<int64_t>(columns_().front().size());
  begin_ = end_ = 0;
}

template <typename Part>
void StateStream::ForEachPart(const std::vector<std::span<float>>& columns, const Part& part) {
  size_t at = 0;
  for (const std::span<float> column : columns) {
    const auto size = static_cast<int64_t>(column.size());
    const int64_t begin = std::min(begin_, size);
    const auto count = static_cast<size_t>(std::min(end_, size) - begin);
    part(column.subspan(static_cast<size_t>(begin), count), std::span(copy_).subspan(at, count));
    at += count;
  }
}

void StateStream::SendPiece() {
  if (done()) return;
  const std::vector<std::span<float>> columns = columns_();
  const auto width = static_cast<int64_t>(columns.size());
  end_ = std::min(begin_ + (piece_ + width - 1) / width, elements_);
  size_t floats = 0;
  for (const std::span<float> column : columns) {
    const auto size = static_cast<int64_t>(column.size());
    floats += static_cast<size_t>(std::min(end_, size) - std::min(begin_, size));
  }
  copy_.resize(floats);
  if (joins()) {
    const int source = (gang_->rank() - whole_) % whole_;
    handles_.push_back(gang_->RecvAsync(copy_.data(), copy_.size(), DataType::kFloat32, source));
    return;
  }
  const int first = whole_ + gang_->rank();
  if (first >= gang_->size()) return;
  ForEachPart(columns, [](std::span<float> state, std::span<float> piece) {
    std::copy(state.begin(), state.end(), piece.begin());
  });
  for (int joiner = first; joiner < gang_->size(); joiner += whole_) {
    handles_.push_back(gang_->SendAsync(copy_.data(), copy_.size(), DataType::kFloat32, joiner));
  }
}

Status StateStream::TakePiece() {
  Status arrived;
  for (const collectives::HandlePtr& handle : std::exchange(handles_, {})) {
    const Status status = handle->Wait(Deadline::Never());
    if (arrived.ok()) arrived = status;
  }
  LEPTON_RETURN_IF_ERROR(arrived.WithContext("a piece of the training state"));
  if (joins()) {
    ForEachPart(columns_(), [](std::span<float> state, std::span<float> piece) {
      std::copy(piece.begin(), piece.end(), state.begin());
    });
  }
  begin_ = end_;
  return Status::Ok();
}

Status StateStream::SendRest() {
  while (!done()) {
    SendPiece();
    LEPTON_RETURN_IF_ERROR(TakePiece());
  }
  return Status::Ok();
}

void StateStream::Close() {
  handles_.clear();
  gang_ = nullptr;
  copy_ = {};
}

}  // namespace lepton::worker
