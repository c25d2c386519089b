#include "worker/train/gradient_exchange.h"

#include <algorithm>

namespace lepton::worker {

GradientExchange::GradientExchange(nn::TrainingProgram& program, Options options)
    : program_(program), options_(options), fold_(program.gradients().size()) {
  MakeBuckets(options.bucket_bytes);
  if (options_.overlap && buckets_.size() > 1) {
    program_.WatchGradients([this](size_t parameter) { OnReady(parameter); });
  }
}

GradientExchange::~GradientExchange() {
  Abandon();
  program_.WatchGradients(nullptr);
}

void GradientExchange::MakeBuckets(int64_t bucket_bytes) {
  const std::vector<nn::ParameterView>& parameters = program_.parameters();
  bucket_of_.resize(parameters.size());
  for (size_t i = parameters.size(); i-- > 0;) {
    const nn::ParameterView& view = parameters[i];
    if (view.statistic) continue;
    trained_ = std::max(trained_, view.offset + view.size);
    const bool full = buckets_.empty() || (buckets_.back().end - buckets_.back().begin) *
                                                  static_cast<int64_t>(sizeof(float)) >=
                                              bucket_bytes;
    if (full) buckets_.push_back({view.offset, view.offset + view.size});
    buckets_.back().begin = view.offset;
    ++buckets_.back().parameters;
    bucket_of_[i] = buckets_.size() - 1;
  }
  if (buckets_.empty()) buckets_.emplace_back();
}

void GradientExchange::Begin(collectives::Communicator& gang, int shards, int pieces) {
  Abandon();
  gang_ = &gang;
  micro_batches_ = shards * pieces;
  pieces_ = pieces;
  next_ = 0;
  sent_ = 0;
  fold_.Reset();
  missing_.clear();
  for (const Bucket& bucket : buckets_) missing_.push_back(bucket.parameters);
}

void GradientExchange::After() {
  const std::span<float> gradients = program_.gradients();
  const int piece = next_++ % pieces_;
  if (next_ == micro_batches_) return;  // Reduce goes on
  if (pieces_ == 1) return fold_.Add(gradients);
  if (piece == 0) {
    pieces_sum_.assign(gradients.begin(), gradients.end());
    return;
  }
  for (size_t i = 0; i < gradients.size(); ++i) pieces_sum_[i] += gradients[i];
  if (piece + 1 == pieces_) fold_.Add(pieces_sum_);
}

void GradientExchange::OnReady(size_t parameter) {
  if (gang_ == nullptr || next_ + 1 != micro_batches_ || gang_->size() == 1) return;
  --missing_[bucket_of_[parameter]];
  SendReadyBuckets();
}

// All but the last one.
void GradientExchange::SendReadyBuckets() {
  for (; sent_ + 1 < buckets_.size() && missing_[sent_] == 0; ++sent_) {
    const Bucket& bucket = buckets_[sent_];
    Fold(bucket.begin, bucket.end);
    float* const values = program_.gradients().data() + bucket.begin;
    handles_.push_back(
        gang_->AllReduceAsync(values, values, static_cast<size_t>(bucket.end - bucket.begin),
                              collectives::DataType::kFloat32, collectives::ReduceOp::kSum));
  }
}

// Finishes this rank's sum of a part of the gradient, in place.
void GradientExchange::Fold(int64_t begin, int64_t end) {
  const std::span<float> part = program_.gradients().subspan(begin, end - begin);
  if (micro_batches_ == 0) return std::fill(part.begin(), part.end(), -0.0f);
  if (pieces_ > 1) {
    for (size_t i = 0; i < part.size(); ++i) part[i] = pieces_sum_[begin + i] + part[i];
  }
  fold_.AddLast(begin, part);
}

Status GradientExchange::Reduce(std::span<float> tail) {
  const std::span<float> gradients = program_.gradients();
  if (gang_->size() == 1) {
    Fold(0, static_cast<int64_t>(gradients.size()));
    return Status::Ok();
  }
  std::fill(missing_.begin(), missing_.end(), 0);
  SendReadyBuckets();
  const Bucket& bucket = buckets_.back();
  const std::span<float> parts[] = {gradients.subspan(bucket.begin, bucket.end - bucket.begin),
                                    gradients.subspan(trained_), tail};
  Fold(bucket.begin, bucket.end);
  Fold(trained_, static_cast<int64_t>(gradients.size()));
  last_.clear();
  for (const auto& part : parts) last_.insert(last_.end(), part.begin(), part.end());
  LEPTON_RETURN_IF_ERROR(gang_->AllReduce(last_.data(), last_.data(), last_.size(),
                                          collectives::DataType::kFloat32,
                                          collectives::ReduceOp::kSum));
  auto from = last_.cbegin();
  for (const auto& part : parts) {
    std::copy_n(from, part.size(), part.begin());
    from += static_cast<ptrdiff_t>(part.size());
  }
  // The blocking call waited for them: none of this waits.
  for (const collectives::HandlePtr& handle : handles_) {
    LEPTON_RETURN_IF_ERROR(handle->Wait(Deadline::Never()));
  }
  handles_.clear();
  return Status::Ok();
}

void GradientExchange::Abandon() {
  handles_.clear();
  gang_ = nullptr;
}

}  // namespace lepton::worker
