#include "worker/data/text_rows.h"

#include <algorithm>
#include <limits>

#include "runtime/base/progress.h"

namespace lepton::worker {
namespace {

// The rows of a micro-batch of texts, with everything behind a text's end.
class TextFiller {
 public:
  TextFiller(BatchBuffer& out, int64_t rows, int64_t longest, int64_t context) : out_(out) {
    length_ = PaddedLength(longest, context);
    out.Resize(rows, length_);
    tokens_ = out.Ints("tokens");
    types_ = out.Ints("token_types");
    mask_ = out.Floats("mask");
  }
  bool takes_tokens() const { return tokens_ != nullptr; }
  int64_t length() const { return length_; }
  int32_t* tokens(int64_t row) const { return tokens_ + row * length_; }
  // nullptr when the model has none.
  int32_t* types(int64_t row) const { return types_ == nullptr ? nullptr : types_ + row * length_; }

  void Pad(int64_t row, int64_t size) {
    std::fill(tokens(row) + size, tokens(row) + length_, 0);
    if (types_ != nullptr) std::fill(types(row) + size, types(row) + length_, 0);
    if (mask_ == nullptr) return;
    float* const mask = mask_ + row * length_;
    std::fill(mask, mask + size, 0.0f);
    std::fill(mask + size, mask + length_, kPaddingBias);
  }

 private:
  BatchBuffer& out_;
  int64_t length_ = 0;
  int32_t* tokens_ = nullptr;
  int32_t* types_ = nullptr;
  float* mask_ = nullptr;
};

}  // namespace

int64_t PaddedLength(int64_t length, int64_t context) {
  int64_t padded = 16;
  for (int64_t step = 16; padded < length; padded += step) {
    // From 128 on, steps are a quarter of a power of two.
    while (padded >= 8 * step) step *= 2;
  }
  return std::clamp<int64_t>(padded, 1, std::max<int64_t>(1, context));
}

Status TextRows::Fill(uint64_t, std::span<const int64_t> examples, BatchBuffer& out) const {
  int64_t longest = 1;
  for (const int64_t example : examples) {
    longest = std::max(longest, rows_->size(row_numbers_[example]));
  }
  TextFiller filler(out, static_cast<int64_t>(examples.size()), longest, context_);
  if (!filler.takes_tokens()) return InvalidArgument("the model takes no tokens");
  if (next_token_) out.classes.assign(examples.size() * filler.length(), nn::kNoTarget);
  for (size_t i = 0; i < examples.size(); ++i) {
    const int64_t row = row_numbers_[examples[i]];
    const int64_t begin = rows_->begin(row), size = rows_->size(row);
    progress::Tick();
    int32_t* const tokens = filler.tokens(i);
    rows_->tokens->Read(begin, size, tokens);
    if (int32_t* const types = filler.types(i)) {
      if (rows_->types != nullptr) {
        rows_->types->Read(begin, size, types);
      } else {
        std::fill_n(types, size, 0);
      }
    }
    filler.Pad(i, size);
    if (next_token_ && size > 1) {
      std::copy(tokens + 1, tokens + size, &out.classes[i * filler.length()]);
    }
  }
  if (!next_token_) FillLabels(examples, out);
  return Status::Ok();
}

Status FillTexts(std::span<const TokenText> texts, int64_t context, BatchBuffer& out) {
  int64_t longest = 1;
  for (const TokenText& text : texts) {
    longest = std::max(longest, static_cast<int64_t>(text.ids.size()));
  }
  if (context < 1) context = std::numeric_limits<int64_t>::max();  // of ONNX: not known
  if (longest > context) return InvalidArgument("a text is longer than the model's context");
  TextFiller filler(out, static_cast<int64_t>(texts.size()), longest, context);
  if (!filler.takes_tokens()) return InvalidArgument("the model takes no tokens");
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto size = static_cast<int64_t>(texts[i].ids.size());
    std::copy(texts[i].ids.begin(), texts[i].ids.end(), filler.tokens(i));
    if (int32_t* const types = filler.types(i)) {
      std::fill_n(types, size, 0);
      std::copy(texts[i].types.begin(), texts[i].types.end(), types);
    }
    filler.Pad(i, size);
  }
  return Status::Ok();
}

}  // namespace lepton::worker
