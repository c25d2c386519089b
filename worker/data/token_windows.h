// Windows of `context` tokens of one part of a stream, for language models: the input is the
// window, the answer of each token is the token behind it.
//
// Training windows do not overlap, and begin at another place in every epoch: the origin is drawn
// from (seed, epoch) in [0, context), so that over the epochs a token is met at every place of a
// window. An epoch has as many windows as fit behind the largest origin, each used once. Evaluation
// windows begin at 0 and cover the whole part; the last one is filled up with tokens without a
// target.
// Threads: as of Examples.
#pragma once

#include "worker/data/examples.h"
#include "worker/data/token_stream.h"

namespace lepton::worker {

class TokenWindows final : public Examples {
 public:
  // Tokens [begin, end) of `stream`, at least 2.
  struct Part {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };
  static std::shared_ptr<const TokenWindows> ForTraining(std::shared_ptr<const TokenStream> stream,
                                                         const Part& part, int64_t context,
                                                         uint64_t seed);
  static std::shared_ptr<const TokenWindows> ForEvaluation(
      std::shared_ptr<const TokenStream> stream, const Part& part, int64_t context);

  int64_t rows() const override { return rows_; }
  Status Fill(uint64_t epoch, std::span<const int64_t> examples, BatchBuffer& out) const override;
  // Where an evaluation window begins in the stream.
  int64_t row_number(int64_t example) const override { return part_.begin + example * context_; }
  int64_t predictions() const override { return context_; }
  int64_t example_bytes() const override { return context_ * 8; }

  // Of an epoch of training; 0 for evaluation.
  int64_t Origin(uint64_t epoch) const;

 private:
  TokenWindows(std::shared_ptr<const TokenStream> stream, const Part& part, int64_t context,
               int64_t rows, bool shifted, uint64_t seed)
      : stream_(std::move(stream)),
        part_(part),
        context_(context),
        rows_(rows),
        shifted_(shifted),
        seed_(seed) {}

  const std::shared_ptr<const TokenStream> stream_;
  const Part part_;
  const int64_t context_, rows_;
  const bool shifted_;
  const uint64_t seed_;
};

}  // namespace lepton::worker
