#include "worker/train/gradient_exchange.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace lepton::worker {

using collectives::DataType;
using collectives::ReduceOp;

GradientExchange::Options GradientExchange::OptionsOf(const spec::JobSpec& spec) {
  Options options;
  options.bucket_bytes = spec.gradients.bucket_bytes;
  if (spec.gradients.compression == "bf16") options.compression = Compression::kBFloat16;
  if (spec.gradients.compression == "low_rank") options.compression = Compression::kLowRank;
  options.rank = spec.gradients.rank;
  options.overlap = spec.local_sgd.inner_steps == 0;
  options.seed = spec.seed;
  return options;
}

GradientExchange::GradientExchange(nn::TrainingProgram& program, Options options)
    : program_(program),
      options_(options),
      fold_(program.gradients().size(), options.compression == Compression::kBFloat16
                                            ? TreeFold::Rounding::kBFloat16
                                            : TreeFold::Rounding::kNone),
      statistics_fold_(0) {
  const int64_t bytes = static_cast<int64_t>(sizeof(float) * program.gradients().size());
  if (options_.bucket_bytes == 0 && options_.overlap) tuner_.emplace(bytes);
  MakeBuckets(options_.bucket_bytes > 0 ? options_.bucket_bytes : BucketTuner::kFirst);
  statistics_fold_ = TreeFold(program.gradients().size() - trained_);
  if (options_.compression == Compression::kBFloat16) halves_.resize(trained_);
  if (options_.compression == Compression::kLowRank) {
    low_rank_.emplace(program.parameters(), options.rank, options.seed);
    LayPayload();
  }
  if (options_.overlap && (tuner_ || buckets_.size() > 1)) {
    program_.WatchGradients([this](size_t parameter) { OnReady(parameter); });
  }
}

GradientExchange::~GradientExchange() {
  Abandon();
  program_.WatchGradients(nullptr);
}

void GradientExchange::MakeBuckets(int64_t bucket_bytes) {
  const std::vector<nn::ParameterView>& parameters = program_.parameters();
  bucket_bytes_ = bucket_bytes;
  buckets_.clear();
  bucket_of_.resize(parameters.size());
  for (size_t i = parameters.size(); i-- > 0;) {
    const nn::ParameterView& view = parameters[i];
    if (view.statistic) continue;
    trained_ = std::max(trained_, view.offset + view.size);
    const bool full = buckets_.empty() || (buckets_.back().end - buckets_.back().begin) *
                                                  static_cast<int64_t>(sizeof(float)) >=
                                              bucket_bytes;
    if (full) buckets_.push_back({view.offset, view.offset + view.size, i, i});
    buckets_.back().begin = view.offset;
    buckets_.back().first = i;
    ++buckets_.back().parameters;
    bucket_of_[i] = buckets_.size() - 1;
  }
}

// kLowRank: what a bucket sends lies together.
void GradientExchange::LayPayload() {
  payload_.clear();
  for (Bucket& bucket : buckets_) {
    bucket.payload = bucket.payload_end = static_cast<int64_t>(payload_.size());
    for (size_t i = bucket.first; i <= bucket.last; ++i) {
      const nn::ParameterView& view = program_.parameters()[i];
      if (view.statistic) continue;
      bucket.payload_end +=
          low_rank_->Compresses(i) ? static_cast<int64_t>(low_rank_->left(i).size()) : view.size;
    }
    payload_.resize(bucket.payload_end);
  }
}

void GradientExchange::EnterGroup(int mine, int shards) {
  Abandon();
  if (tuner_) tuner_->Restart();
  if (low_rank_) low_rank_->Reset(mine, shards);
}

int64_t GradientExchange::payload_bytes() const {
  const auto elements = static_cast<int64_t>(program_.gradients().size());
  const int64_t statistics = 4 * (elements - trained_);
  if (options_.compression == Compression::kBFloat16) return statistics + 2 * trained_;
  if (!low_rank_) return 4 * elements;
  return statistics + 4 * (trained_ - low_rank_->matrix_elements() + low_rank_->factor_elements());
}

uint64_t GradientExchange::bytes() const {
  return fold_.bytes() + statistics_fold_.bytes() + sizeof(BF16) * halves_.size() +
         sizeof(float) * (pieces_sum_.size() + last_.size() + payload_.size());
}

void GradientExchange::Begin(collectives::Communicator& gang, int shards, int pieces) {
  Abandon();
  gang_ = &gang;
  begun_ = RealClock().Now();
  if (tuner_ && tuner_->bytes() != bucket_bytes_) {
    MakeBuckets(tuner_->bytes());
    if (low_rank_) LayPayload();
  }
  micro_batches_ = shards * pieces;
  pieces_ = pieces;
  next_ = 0;
  sent_ = 0;
  behind_ = false;
  fold_.Reset();
  statistics_fold_.Reset();
  if (low_rank_) low_rank_->Begin();
  missing_.clear();
  for (const Bucket& bucket : buckets_) missing_.push_back(bucket.parameters);
}

void GradientExchange::AddShard(std::span<const float> gradients) {
  fold_.Add(gradients);
  if (low_rank_) low_rank_->AddShard(gradients);
  // Statistics are not rounded.
  statistics_fold_.Add(gradients.subspan(trained_));
}

void GradientExchange::After() {
  const int piece = next_++ % pieces_;
  if (next_ == micro_batches_) return;  // Reduce goes on
  const std::span<float> gradients = program_.gradients();
  if (pieces_ == 1) return AddShard(gradients);
  if (piece == 0) {
    pieces_sum_.assign(gradients.begin(), gradients.end());
    return;
  }
  for (size_t i = 0; i < gradients.size(); ++i) pieces_sum_[i] += gradients[i];
  if (piece + 1 == pieces_) AddShard(pieces_sum_);
}

void GradientExchange::OnReady(size_t parameter) {
  if (gang_ == nullptr || next_ + 1 != micro_batches_ || gang_->size() == 1) return;
  --missing_[bucket_of_[parameter]];
  SendReadyBuckets();
}

// All but the last one while the backward pass goes on.
void GradientExchange::SendReadyBuckets() {
  const size_t end = buckets_.size() - (compressed() && behind_ ? 0 : 1);
  for (; sent_ < end && missing_[sent_] == 0; ++sent_) Send(buckets_[sent_]);
}

void GradientExchange::Send(const Bucket& bucket) {
  const auto send = [this](void* data, int64_t count, DataType type, ReduceOp op) {
    if (gang_->size() == 1) return;
    handles_.push_back(gang_->AllReduceAsync(data, data, static_cast<size_t>(count), type, op));
  };
  if (low_rank_) {
    Pack(bucket);
    return send(payload_.data() + bucket.payload, bucket.payload_end - bucket.payload,
                DataType::kFloat32, ReduceOp::kSum);
  }
  Fold(bucket.begin, bucket.end);
  float* const values = program_.gradients().data() + bucket.begin;
  if (!compressed()) {
    return send(values, bucket.end - bucket.begin, DataType::kFloat32, ReduceOp::kSum);
  }
  BF16* const halves = halves_.data() + bucket.begin;
  for (int64_t i = 0; i < bucket.end - bucket.begin; ++i) halves[i] = BF16::FromFloat(values[i]);
  send(halves, bucket.end - bucket.begin, DataType::kBFloat16, ReduceOp::kRoundedSum);
}

// The last shard's gradient, in place, and this rank's sum of it.
void GradientExchange::Fold(int64_t begin, int64_t end) {
  const std::span<float> part = program_.gradients().subspan(begin, end - begin);
  if (micro_batches_ == 0) return std::fill(part.begin(), part.end(), -0.0f);
  FinishPieces(part, begin);
  if (begin >= trained_) {
    statistics_fold_.AddLast(begin - trained_, part);
  } else {
    fold_.AddLast(begin, part);
  }
}

void GradientExchange::FinishPieces(std::span<float> part, int64_t begin) const {
  if (pieces_ == 1) return;
  for (size_t i = 0; i < part.size(); ++i) part[i] = pieces_sum_[begin + i] + part[i];
}

void GradientExchange::Pack(const Bucket& bucket) {
  auto to = payload_.begin() + bucket.payload;
  for (size_t i = bucket.first; i <= bucket.last; ++i) {
    const nn::ParameterView& view = program_.parameters()[i];
    if (view.statistic) continue;
    std::span<float> part = program_.gradients().subspan(view.offset, view.size);
    if (!low_rank_->Compresses(i)) {
      Fold(view.offset, view.offset + view.size);
    } else if (micro_batches_ > 0) {
      FinishPieces(part, view.offset);
      low_rank_->AddMatrix(i, program_.gradients());
    }
    if (low_rank_->Compresses(i)) part = low_rank_->left(i);
    to = std::copy(part.begin(), part.end(), to);
  }
}

void GradientExchange::Unpack(const Bucket& bucket) {
  auto from = payload_.cbegin() + bucket.payload;
  for (size_t i = bucket.first; i <= bucket.last; ++i) {
    const nn::ParameterView& view = program_.parameters()[i];
    if (view.statistic) continue;
    const std::span<float> part = low_rank_->Compresses(i)
                                      ? low_rank_->left(i)
                                      : program_.gradients().subspan(view.offset, view.size);
    std::copy_n(from, part.size(), part.begin());
    from += static_cast<ptrdiff_t>(part.size());
  }
}

Status GradientExchange::Reduce(std::span<float> tail) {
  LEPTON_RETURN_IF_ERROR(SumAll(tail));
  if (measures()) Tune();
  return Status::Ok();
}

// The sums are there. What this step took goes with the next one's.
void GradientExchange::Tune() {
  tuner_->Took(double{seconds_});
  seconds_ = std::chrono::duration<float>(RealClock().Now() - begun_).count();
  if (!tuner_->done() || gang_->rank() != 0) return;
  LOG(INFO) << "gradients travel in buckets of " << tuner_->bytes()
            << " bytes, as measured: " << tuner_->best_seconds() / gang_->size() << " s a step";
}

Status GradientExchange::SumAll(std::span<float> tail) {
  // A sum of one: on a device it stays there.
  if (gang_->size() == 1 && micro_batches_ == 1 && !compressed()) return Status::Ok();
  const std::span<float> gradients = program_.gradients();
  behind_ = true;
  std::fill(missing_.begin(), missing_.end(), 0);
  if (low_rank_ && micro_batches_ == 0) low_rank_->AddNothing();
  SendReadyBuckets();
  Fold(trained_, static_cast<int64_t>(gradients.size()));
  const std::span<float> statistics = gradients.subspan(trained_);
  const std::span<float> seconds(&seconds_, measures() ? 1 : 0);
  if (compressed()) {
    const std::span<float> parts[] = {statistics, tail, seconds};
    LEPTON_RETURN_IF_ERROR(SumBehind(parts));
    return Decompress();
  }
  const Bucket& last = buckets_.back();
  Fold(last.begin, last.end);
  const std::span<float> parts[] = {gradients.subspan(last.begin, last.end - last.begin),
                                    statistics, tail, seconds};
  return SumBehind(parts);
}

// A blocking sum, behind which all that is under way is done.
Status GradientExchange::SumBehind(std::span<const std::span<float>> parts) {
  if (gang_->size() == 1) return Status::Ok();
  last_.clear();
  for (const auto& part : parts) last_.insert(last_.end(), part.begin(), part.end());
  LEPTON_RETURN_IF_ERROR(gang_->AllReduce(last_.data(), last_.data(), last_.size(),
                                          DataType::kFloat32, ReduceOp::kSum));
  auto from = last_.cbegin();
  for (const auto& part : parts) {
    std::copy_n(from, part.size(), part.begin());
    from += static_cast<ptrdiff_t>(part.size());
  }
  for (const collectives::HandlePtr& handle : handles_) {
    LEPTON_RETURN_IF_ERROR(handle->Wait(Deadline::Never()));
  }
  handles_.clear();
  return Status::Ok();
}

Status GradientExchange::Decompress() {
  const std::span<float> gradients = program_.gradients();
  if (!low_rank_) {
    for (int64_t i = 0; i < trained_; ++i) gradients[i] = BF16::ToFloat(halves_[i]);
    return Status::Ok();
  }
  for (const Bucket& bucket : buckets_) Unpack(bucket);
  const std::span<float> rights[] = {low_rank_->Rights()};
  if (!rights[0].empty()) LEPTON_RETURN_IF_ERROR(SumBehind(rights));
  low_rank_->Decompress(gradients);
  return Status::Ok();
}

void GradientExchange::Abandon() {
  handles_.clear();
  gang_ = nullptr;
}

}  // namespace lepton::worker
