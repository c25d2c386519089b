#include "worker/train/local_rounds.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/base/thread_pool.h"

namespace lepton::worker {
namespace {

constexpr int64_t kRoundGrain = 1 << 15;  // elements for which another thread is worth waking

// to[i] = of(i)
template <typename Of>
void Fill(std::span<float> to, const Of& of) {
  ThreadPool::Compute().ParallelFor(static_cast<int64_t>(to.size()), kRoundGrain,
                                    [&](int64_t begin, int64_t end) {
                                      for (int64_t i = begin; i < end; ++i) to[i] = of(i);
                                    });
}

void Copy(std::span<const float> from, std::span<float> to) {
  Fill(to, [&](int64_t i) { return from[i]; });
}

}  // namespace

std::unique_ptr<nn::OuterOptimizer> MakeOuterOptimizer(const spec::JobSpec& spec,
                                                       const nn::TrainingProgram& program) {
  if (spec.local_sgd.inner_steps == 0) return nullptr;
  return std::make_unique<nn::OuterOptimizer>(spec.local_sgd.outer_optimizer, program.parameters());
}

LocalRounds::LocalRounds(nn::TrainingProgram& program, nn::OuterOptimizer& outer,
                         const spec::JobSpec& spec)
    : program_(program),
      outer_(outer),
      inner_steps_(static_cast<uint64_t>(spec.local_sgd.inner_steps)),
      pieces_(static_cast<int>(spec.accumulate)),
      weights_(program.weights().size()),
      figures_(kTailSize) {}

uint64_t LocalRounds::EndOf(uint64_t step, uint64_t last_step) const {
  return std::min((step / inner_steps_ + 1) * inner_steps_, last_step);
}

uint64_t LocalRounds::BeginOf(uint64_t end) const {
  return (end - 1) / inner_steps_ * inner_steps_;
}

void LocalRounds::Begin(uint64_t step, bool keep_parts) {
  if (step != begin_) parts_.clear();
  begin_ = step;
  keeps_ = keep_parts;
  Copy(program_.weights(), weights_);
  figures_.Reset();
}

void LocalRounds::BeginShard() {
  Restore();
  program_.RestartOptimizer(begin_);
  part_.loss = {};
  part_.norms = 0;
  part_.steps = 0;
}

void LocalRounds::AddPiece(int piece) {
  if (pieces_ == 1) return;
  const std::span<const float> gradients = program_.gradients();
  pieces_sum_.resize(gradients.size());
  if (piece == 0) return Copy(gradients, pieces_sum_);
  Fill(pieces_sum_, [&](int64_t i) { return pieces_sum_[i] + gradients[i]; });
}

// A step in which the shard has nothing to learn from is none.
void LocalRounds::Step(uint64_t step, const nn::LossSum& loss) {
  if (!(loss.count > 0)) return;
  if (pieces_ > 1) Copy(pieces_sum_, program_.gradients());
  part_.norms += program_.ApplyGradients(step, 1.0 / loss.count);
  part_.loss.sum += loss.sum;
  part_.loss.count += loss.count;
  ++part_.steps;
}

void LocalRounds::EndShard(int shard, const SampleCount& samples) {
  const std::span<const float> weights = program_.weights();
  const auto count = static_cast<float>(part_.loss.count);
  part_.change.resize(weights.size());
  Fill(part_.change, [&](int64_t i) { return (weights_[i] - weights[i]) * count; });
  part_.samples = samples;
  parts_[shard] = std::exchange(part_, {});
}

nn::LossSum LocalRounds::Give(int shard) {
  const auto found = parts_.find(shard);
  const Part& part = found->second;
  Copy(part.change, program_.gradients());
  figures_.Add(std::array{static_cast<float>(part.norms), static_cast<float>(part.steps)});
  const nn::LossSum loss = part.loss;
  if (!keeps_) parts_.erase(found);
  return loss;
}

void LocalRounds::Restore() {
  Copy(weights_, program_.weights());
}

void LocalRounds::WriteTail(std::span<float> tail) {
  figures_.Finish(tail);
}

void LocalRounds::ReadTail(std::span<const float> tail) {
  norm_ = tail[kNorms] / std::max(1.0f, tail[kSteps]);
}

void LocalRounds::Apply(double count) {
  parts_.clear();
  if (!(count > 0)) return;
  outer_.Step(program_.gradients(), 1.0 / count, program_.weights());
}

uint64_t LocalRounds::bytes() const {
  size_t floats = weights_.size() + pieces_sum_.size() + part_.change.size();
  for (const auto& [shard, part] : parts_) floats += part.change.size();
  return floats * sizeof(float);
}

}  // namespace lepton::worker
