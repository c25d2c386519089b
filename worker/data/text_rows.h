// Texts, one an example, as tokens of their own lengths: for classes and values, or for language
// models that learn a text at a time. A micro-batch is as long as its longest text, rounded up to
// one of few lengths, since a program is planned for each.
// Threads: as of Examples.
#pragma once

#include "worker/data/examples.h"
#include "worker/data/token_stream.h"

namespace lepton::worker {

// Where each text's tokens lie in one stream.
struct TokenRows {
  std::shared_ptr<const TokenStream> tokens;
  std::shared_ptr<const TokenStream> types;  // of each token, for pairs; nullptr: all 0
  std::vector<int64_t> ends;                 // by row
  int64_t begin(int64_t row) const { return row == 0 ? 0 : ends[row - 1]; }
  int64_t size(int64_t row) const { return ends[row] - begin(row); }
};

// `length` tokens padded: by steps of 16 to 128, then four to each doubling (160, 192, 224, 256,
// 320, ...), at most `context`. Each length is a plan; what is padded is computed.
int64_t PaddedLength(int64_t length, int64_t context);

class TextRows final : public Examples {
 public:
  // `row_numbers`: of `rows`, whose texts have at most `context` tokens. `next_token`: the answers
  // are the tokens themselves.
  TextRows(std::shared_ptr<const TokenRows> rows, std::vector<int64_t> row_numbers, int64_t context,
           bool next_token)
      : rows_(std::move(rows)),
        row_numbers_(std::move(row_numbers)),
        context_(context),
        next_token_(next_token) {}

  int64_t rows() const override { return static_cast<int64_t>(row_numbers_.size()); }
  Status Fill(uint64_t epoch, std::span<const int64_t> examples, BatchBuffer& out) const override;
  int64_t row_number(int64_t example) const override { return row_numbers_[example]; }
  int64_t predictions() const override { return next_token_ ? context_ : 1; }
  int64_t padded_length(int64_t example) const override {
    return PaddedLength(rows_->size(row_numbers_[example]), context_);
  }
  int64_t example_bytes() const override { return context_ * 8; }

 private:
  const std::shared_ptr<const TokenRows> rows_;
  const std::vector<int64_t> row_numbers_;
  const int64_t context_;
  const bool next_token_;
};

// Texts that are not of a dataset, as a model takes them. `types` may be empty.
inline constexpr float kPaddingBias = -1e9f;  // of attention to padding
struct TokenText {
  std::vector<int32_t> ids, types;
};
Status FillTexts(std::span<const TokenText> texts, int64_t context, BatchBuffer& out);

}  // namespace lepton::worker
