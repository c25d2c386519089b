#include "worker/batch/generation.h"

#include <glog/logging.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "worker/data/examples.h"

namespace lepton::worker {
namespace {

constexpr int64_t kStepsToAsk = 16;                // from one question whether to go on to another
constexpr int64_t kCacheBytes = int64_t{2} << 30;  // all texts' keys and values

double UniformDraw(uint64_t seed, int64_t number, int64_t token) {
  const uint64_t bits =
      ExampleDraw(seed, static_cast<uint64_t>(token), static_cast<uint64_t>(number), /*purpose=*/4);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// A text that has not ended.
struct Growing {
  size_t prompt = 0;
  std::vector<int32_t> ids;
  int64_t slot = 0;
  int64_t said = 0;  // tokens
};

// What follows texts.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual int64_t texts_at_once() const = 0;
  // logits [texts, outputs] of what follows each text's last token.
  virtual Status Read(std::span<const Growing> texts, std::vector<float>& logits) = 0;
  // What was read in the slot counts no more: another text takes it, or the first tokens go.
  virtual void Clear(int64_t /*slot*/) {}
};

class CachedReader final : public Reader {
 public:
  CachedReader(nn::DecodingProgram& decoder, int64_t outputs)
      : decoder_(decoder), outputs_(outputs) {}
  int64_t texts_at_once() const override { return decoder_.options().slots; }
  void Clear(int64_t slot) override { decoder_.Truncate(slot, 0); }
  Status Read(std::span<const Growing> texts, std::vector<float>& logits) override {
    std::vector<nn::DecodingProgram::Extension> extensions;
    for (const Growing& text : texts) {
      const auto known = static_cast<size_t>(decoder_.length(text.slot));
      extensions.push_back({text.slot, std::span(text.ids).subspan(known)});
    }
    logits.resize(texts.size() * static_cast<size_t>(outputs_));
    return decoder_.Extend(extensions, logits);
  }

 private:
  nn::DecodingProgram& decoder_;
  const int64_t outputs_;
};

class WholeReader final : public Reader {
 public:
  // `tokens`: of the longest text at its end.
  WholeReader(LoadedModel& model, int64_t tokens)
      : model_(model),
        texts_at_once_(WholeTextsAtOnce(tokens, model.outputs())),
        buffer_(model.signature()) {}
  int64_t texts_at_once() const override { return texts_at_once_; }
  Status Read(std::span<const Growing> texts, std::vector<float>& logits) override {
    std::vector<TokenText> all(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) all[i].ids = texts[i].ids;
    LEPTON_RETURN_IF_ERROR(FillTexts(all, model_.manifest().input.context, buffer_));
    const int64_t outputs = model_.outputs();
    whole_.resize(buffer_.rows() * buffer_.sequence() * outputs);
    LEPTON_RETURN_IF_ERROR(model_.Forward(buffer_.batch(), whole_));
    logits.resize(texts.size() * static_cast<size_t>(outputs));
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto last = static_cast<int64_t>(i) * buffer_.sequence() +
                        static_cast<int64_t>(texts[i].ids.size()) - 1;
      std::copy_n(whole_.begin() + last * outputs, outputs,
                  logits.begin() + static_cast<int64_t>(i) * outputs);
    }
    return Status::Ok();
  }

 private:
  LoadedModel& model_;
  const int64_t texts_at_once_;
  BatchBuffer buffer_;
  std::vector<float> whole_;
};

// As many texts as there is room for, as long as there are any.
class Writer {
 public:
  Writer(LoadedModel& model, Reader& reader, std::span<const std::vector<int32_t>> prompts,
         std::span<const int64_t> numbers, const spec::GenerateSpec& options,
         const GoOnWriting& go_on)
      : model_(model),
        reader_(reader),
        context_(model.manifest().input.context > 0
                     ? static_cast<size_t>(model.manifest().input.context)
                     : std::numeric_limits<size_t>::max()),
        prompts_(prompts),
        numbers_(numbers),
        options_(options),
        go_on_(go_on),
        said_(prompts.size()) {
    for (int64_t slot = reader.texts_at_once(); slot > 0; --slot) free_.push_back(slot - 1);
  }

  Result<std::vector<std::vector<uint32_t>>> Run() {
    if (options_.max_tokens < 1) return std::move(said_);
    for (size_t next = 0; next < prompts_.size() || !texts_.empty();) {
      for (; next < prompts_.size() && !free_.empty(); ++next) Begin(next);
      LEPTON_RETURN_IF_ERROR(Step());
      if (go_on_ && ++steps_ % kStepsToAsk == 0) {
        LEPTON_RETURN_IF_ERROR(go_on_(ShareDone(next)));
      }
    }
    return std::move(said_);
  }

 private:
  // Of the texts before `next`, those that have ended have all that they may have.
  double ShareDone(size_t next) const {
    auto tokens = static_cast<double>(next - texts_.size()) * options_.max_tokens;
    for (const Growing& text : texts_) tokens += static_cast<double>(text.said);
    return tokens / (static_cast<double>(prompts_.size()) * options_.max_tokens);
  }

  void Begin(size_t prompt) {
    texts_.push_back({prompt, prompts_[prompt], free_.back(), 0});
    free_.pop_back();
    if (texts_.back().ids.empty()) texts_.back().ids = {0};
    reader_.Clear(texts_.back().slot);
  }

  Status Step() {
    for (Growing& text : texts_) {
      if (text.ids.size() <= context_) continue;
      text.ids.erase(text.ids.begin(), text.ids.end() - static_cast<int64_t>(context_));
      reader_.Clear(text.slot);
    }
    LEPTON_RETURN_IF_ERROR(reader_.Read(texts_, logits_));
    const auto outputs = static_cast<size_t>(model_.outputs());
    size_t going = 0;  // those that have not ended move up
    for (size_t i = 0; i < texts_.size(); ++i) {
      Growing& text = texts_[i];
      const auto logits = std::span<const float>(logits_).subspan(i * outputs, outputs);
      const uint32_t next =
          ChooseToken(logits, options_.temperature,
                      UniformDraw(options_.seed, numbers_[text.prompt], text.said));
      const bool number = std::isfinite(logits[next]);
      LOG_IF(WARNING, !number) << "row " << numbers_[text.prompt]
                               << ": the text ends, for the model's answer is not a number";
      const bool end = !number || model_.IsEnd(next);
      if (!end) said_[text.prompt].push_back(next);
      if (end || ++text.said == options_.max_tokens) {
        free_.push_back(text.slot);
        continue;
      }
      text.ids.push_back(static_cast<int32_t>(next));
      if (going != i) texts_[going] = std::move(text);
      ++going;
    }
    texts_.resize(going);
    return Status::Ok();
  }

  LoadedModel& model_;
  Reader& reader_;
  const size_t context_;
  const std::span<const std::vector<int32_t>> prompts_;
  const std::span<const int64_t> numbers_;
  const spec::GenerateSpec& options_;
  const GoOnWriting& go_on_;
  int64_t steps_ = 0;
  std::vector<int64_t> free_;  // slots
  std::vector<Growing> texts_;
  std::vector<std::vector<uint32_t>> said_;
  std::vector<float> logits_;
};

// Of the longest of these texts at its end.
uint64_t LongestOf(std::span<const std::vector<int32_t>> prompts, int64_t max_tokens) {
  size_t longest = 1;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  return longest + static_cast<uint64_t>(max_tokens);
}

// Room for so many tokens, in few sizes.
int64_t ContextFor(uint64_t tokens, int64_t most) {
  return tokens >= static_cast<uint64_t>(most)
             ? most
             : std::min(most, static_cast<int64_t>(std::bit_ceil(tokens)));
}

}  // namespace

int64_t WholeTextsAtOnce(int64_t tokens, int64_t outputs) {
  constexpr int64_t kMost = 16, kBytes = int64_t{64} << 20;  // as an evaluation's blocks
  const double text = static_cast<double>(tokens) * static_cast<double>(outputs) * sizeof(float);
  return static_cast<int64_t>(
      std::clamp<double>(kBytes / std::max(1.0, text), 1, static_cast<double>(kMost)));
}

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
                                                    const spec::GenerateSpec& options,
                                                    const GoOnWriting& go_on) {
  const uint64_t longest = LongestOf(prompts, options.max_tokens);
  const int64_t context = model.manifest().input.context;
  nn::DecodingProgram::Options wanted;
  wanted.slots = std::clamp<int64_t>(static_cast<int64_t>(prompts.size()), 1, kTextsAtOnce);
  wanted.context = ContextFor(longest, context);
  wanted.most_bytes = kCacheBytes;
  const Result<nn::DecodingProgram*> decoder = model.Decoder(wanted);
  if (decoder.ok()) {
    CachedReader reader(**decoder, model.outputs());
    return Writer(model, reader, prompts, numbers, options, go_on).Run();
  }
  // A model that came as ONNX; or there is no room.
  if (decoder.status().code() != StatusCode::kInvalidArgument) {
    LOG(WARNING) << "generate: each token computes all of its text: "
                 << decoder.status().ToString();
  }
  const auto most =
      static_cast<uint64_t>(context > 0 ? context : std::numeric_limits<int32_t>::max());
  WholeReader reader(model, PaddedLength(static_cast<int64_t>(std::min(longest, most)),
                                         static_cast<int64_t>(most)));
  return Writer(model, reader, prompts, numbers, options, go_on).Run();
}

}  // namespace lepton::worker
