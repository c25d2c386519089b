#include "worker/data/token_windows.h"

#include <algorithm>

#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {
constexpr uint64_t kOriginDraw = 1;  // purposes of ExampleDraw: 2 and 3 are pictures'
}

std::shared_ptr<const TokenWindows> TokenWindows::ForTraining(
    std::shared_ptr<const TokenStream> stream, const Part& part, int64_t context, uint64_t seed) {
  // A window needs one token behind it. Behind the largest origin, context - 1, fit so many; a part
  // too short for that has windows from its start alone.
  const int64_t shifted = (part.size() - context) / context;
  if (shifted < 1) {
    const int64_t window = std::min(context, part.size() - 1);
    return std::shared_ptr<const TokenWindows>(
        new TokenWindows(std::move(stream), part, window, (part.size() - 1) / window, false, seed));
  }
  return std::shared_ptr<const TokenWindows>(
      new TokenWindows(std::move(stream), part, context, shifted, true, seed));
}

std::shared_ptr<const TokenWindows> TokenWindows::ForEvaluation(
    std::shared_ptr<const TokenStream> stream, const Part& part, int64_t context) {
  const int64_t window = std::min(context, part.size() - 1);
  const int64_t rows = (part.size() - 1 + window - 1) / window;
  return std::shared_ptr<const TokenWindows>(
      new TokenWindows(std::move(stream), part, window, rows, false, 0));
}

int64_t TokenWindows::Origin(uint64_t epoch) const {
  if (!shifted_) return 0;
  return static_cast<int64_t>(ExampleDraw(seed_, epoch, 0, kOriginDraw) %
                              static_cast<uint64_t>(context_));
}

Status TokenWindows::Fill(uint64_t epoch, std::span<const int64_t> examples,
                          BatchBuffer& out) const {
  const auto rows = static_cast<int64_t>(examples.size());
  out.Resize(rows, context_);
  int32_t* tokens = out.Ints("tokens");
  if (tokens == nullptr) return InvalidArgument("the model takes no tokens");
  if (float* mask = out.Floats("mask")) std::fill_n(mask, rows * context_, 0.0f);
  if (int32_t* types = out.Ints("token_types")) std::fill_n(types, rows * context_, 0);
  out.classes.resize(rows * context_);
  const int64_t origin = part_.begin + Origin(epoch);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t begin = origin + examples[i] * context_;
    const int64_t targets = std::min(context_, part_.end - 1 - begin);
    progress::Tick();
    int32_t* const row = tokens + i * context_;
    int32_t* const answers = &out.classes[i * context_];
    stream_->Read(begin, targets, row);
    stream_->Read(begin + 1, targets, answers);
    std::fill(row + targets, row + context_, 0);
    std::fill(answers + targets, answers + context_, nn::kNoTarget);
  }
  return Status::Ok();
}

}  // namespace lepton::worker
