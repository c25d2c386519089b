#include "worker/data/batch_source.h"

#include <glog/logging.h>

#include <algorithm>

namespace lepton::worker {

std::vector<MicroBatch> MicroBatchesOf(std::span<const int> shards, int pieces) {
  std::vector<MicroBatch> all;
  for (const int shard : shards) {
    for (int piece = 0; piece < pieces; ++piece) all.push_back({shard, piece});
  }
  return all;
}

BatchSource::BatchSource(ExamplesPtr train, const Options& options)
    : train_(std::move(train)),
      options_(options),
      batch_size_(std::min(options.batch_size, train_->rows())),
      steps_per_epoch_((train_->rows() + batch_size_ - 1) / batch_size_) {
  CHECK_GT(train_->rows(), 0);
}

int64_t BatchSource::BatchRows(uint64_t step) const {
  const int64_t begin = static_cast<int64_t>(step % steps_per_epoch_) * batch_size_;
  return std::min(batch_size_, train_->rows() - begin);
}

uint64_t BatchSource::RowsBefore(uint64_t steps) const {
  const auto of_epoch = static_cast<uint64_t>(steps_per_epoch_);
  return steps / of_epoch * static_cast<uint64_t>(train_->rows()) +
         steps % of_epoch * static_cast<uint64_t>(batch_size_);
}

std::vector<int64_t> BatchSource::Rows(uint64_t step, int shard, int piece) const {
  const uint64_t epoch = step / steps_per_epoch_;
  const int64_t begin = static_cast<int64_t>(step % steps_per_epoch_) * batch_size_;
  const int64_t batch = BatchRows(step);
  const int64_t shard_first = batch * shard / options_.shards;
  const int64_t shard_rows = batch * (shard + 1) / options_.shards - shard_first;
  const int64_t first = shard_first + shard_rows * piece / options_.pieces;
  const int64_t last = shard_first + shard_rows * (piece + 1) / options_.pieces;
  std::vector<int64_t> rows;
  rows.reserve(last - first);
  for (int64_t i = first; i < last; ++i) {
    rows.push_back(PermutedIndex(options_.seed, epoch, train_->rows(), begin + i));
  }
  return rows;
}

Status BatchSource::Fill(uint64_t step, int shard, int piece, BatchBuffer& out) const {
  const std::vector<int64_t> rows = Rows(step, shard, piece);
  out.used = SampleCount::Of(rows);
  if (rows.empty()) {
    out.Resize(0);
    return Status::Ok();
  }
  LEPTON_RETURN_IF_ERROR(train_->Fill(step / steps_per_epoch_, rows, out));
  if (options_.teacher_logits.empty()) return Status::Ok();
  for (const int64_t row : rows) {
    const auto logits = options_.teacher_logits.subspan(row * options_.outputs, options_.outputs);
    out.teacher_logits.insert(out.teacher_logits.end(), logits.begin(), logits.end());
  }
  return Status::Ok();
}

}  // namespace lepton::worker
