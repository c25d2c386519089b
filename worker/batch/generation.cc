#include "worker/batch/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/data/examples.h"

namespace lepton::worker {
namespace {

constexpr size_t kPromptsAtOnce = 16;

double UniformDraw(uint64_t seed, int64_t number, int64_t token) {
  const uint64_t bits =
      ExampleDraw(seed, static_cast<uint64_t>(token), static_cast<uint64_t>(number), /*purpose=*/4);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// Prompts that grow together.
class Growing {
 public:
  Growing(LoadedModel& model, std::span<const std::vector<int32_t>> prompts,
          std::span<const int64_t> numbers, const spec::GenerateSpec& options)
      : model_(model),
        options_(options),
        numbers_(numbers),
        buffer_(model.signature()),
        texts_(prompts.size()),
        prompt_of_(prompts.size()),
        said_(prompts.size()) {
    std::iota(prompt_of_.begin(), prompt_of_.end(), size_t{0});
    for (size_t i = 0; i < prompts.size(); ++i) {
      texts_[i].ids = prompts[i];
      if (texts_[i].ids.empty()) texts_[i].ids = {0};
    }
  }

  Result<std::vector<std::vector<uint32_t>>> Run() {
    for (int64_t token = 0; token < options_.max_tokens && !texts_.empty(); ++token) {
      LEPTON_RETURN_IF_ERROR(Step(token));
    }
    return std::move(said_);
  }

 private:
  Status Step(int64_t token) {
    const int64_t context = model_.manifest().input.context;
    for (TokenText& text : texts_) {
      const auto excess = static_cast<int64_t>(text.ids.size()) - context;
      if (excess > 0) text.ids.erase(text.ids.begin(), text.ids.begin() + excess);
    }
    LEPTON_RETURN_IF_ERROR(FillTexts(texts_, context, buffer_));
    const int64_t outputs = model_.outputs();
    logits_.resize(buffer_.rows() * buffer_.sequence() * outputs);
    LEPTON_RETURN_IF_ERROR(model_.Forward(buffer_.batch(), logits_));
    size_t going = 0;  // those that have not ended move up
    for (size_t i = 0; i < texts_.size(); ++i) {
      const auto last = static_cast<int64_t>(i) * buffer_.sequence() +
                        static_cast<int64_t>(texts_[i].ids.size()) - 1;
      const uint32_t next = ChooseToken(
          std::span<const float>(logits_).subspan(last * outputs, outputs), options_.temperature,
          UniformDraw(options_.seed, numbers_[prompt_of_[i]], token));
      if (model_.IsEnd(next)) continue;
      said_[prompt_of_[i]].push_back(next);
      texts_[i].ids.push_back(static_cast<int32_t>(next));
      if (going != i) texts_[going] = std::move(texts_[i]);
      prompt_of_[going++] = prompt_of_[i];
    }
    texts_.resize(going);
    prompt_of_.resize(going);
    return Status::Ok();
  }

  LoadedModel& model_;
  const spec::GenerateSpec& options_;
  const std::span<const int64_t> numbers_;
  BatchBuffer buffer_;
  std::vector<TokenText> texts_;  // that have not ended
  std::vector<size_t> prompt_of_;
  std::vector<std::vector<uint32_t>> said_;
  std::vector<float> logits_;
};

}  // namespace

uint32_t ChooseToken(std::span<const float> logits, double temperature, double draw) {
  const auto top = std::max_element(logits.begin(), logits.end());
  if (temperature == 0) return static_cast<uint32_t>(top - logits.begin());
  double sum = 0;
  for (const float z : logits) sum += std::exp((double{z} - *top) / temperature);
  double left = draw * sum;
  for (size_t i = 0; i < logits.size(); ++i) {
    left -= std::exp((double{logits[i]} - *top) / temperature);
    if (left < 0) return static_cast<uint32_t>(i);
  }
  return static_cast<uint32_t>(top - logits.begin());  // rounding left nothing
}

Result<std::vector<std::vector<uint32_t>>> Generate(LoadedModel& model,
                                                    std::span<const std::vector<int32_t>> prompts,
                                                    std::span<const int64_t> numbers,
                                                    const spec::GenerateSpec& options) {
  std::vector<std::vector<uint32_t>> all;
  for (size_t first = 0; first < prompts.size(); first += kPromptsAtOnce) {
    const size_t count = std::min(kPromptsAtOnce, prompts.size() - first);
    LEPTON_ASSIGN_OR_RETURN(auto some, Growing(model, prompts.subspan(first, count),
                                               numbers.subspan(first, count), options)
                                           .Run());
    for (auto& said : some) all.push_back(std::move(said));
  }
  return all;
}

}  // namespace lepton::worker
