// A model's answers about prepared examples, block by block.
// Threads: one caller.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "worker/batch/generation.h"
#include "worker/batch/prediction_writer.h"
#include "worker/data/examples.h"
#include "worker/infer/model_runtime.h"

namespace lepton::worker {

struct TokenSums {
  double loss = 0;
  int64_t tokens = 0;
};

class RowAsker {
 public:
  // Of a language model that does not write rows' losses, nothing is computed but what it writes:
  // no logits of a prompt's own tokens. `file_of`: of a row of pictures; may be empty.
  RowAsker(LoadedModel& model, const Examples& examples, const PredictionWriter& writer,
           const spec::GenerateSpec& generate, std::function<std::string_view(int64_t)> file_of);

  // Examples of a block; fixed by the data and the model.
  int64_t block_rows() const { return block_rows_; }
  // Examples that one Ask should have: a block, or whole blocks that have enough texts to be
  // written together.
  int64_t ask_rows() const { return ask_rows_; }
  // Examples whose answers cost hardly more together than one of them: texts that are written.
  int64_t together() const { return generate_.max_tokens < 1 ? 1 : kTextsAtOnce; }
  // The lines of examples [first, last), and a language model's sums over them. `go_on`: see
  // generation.h.
  Result<std::string> Ask(int64_t first, int64_t last, TokenSums* sums,
                          const GoOnWriting& go_on = {});

 private:
  // Adds the answers, in order, and the texts that are to go on from them.
  Status AskBlock(int64_t first, int64_t last, std::vector<RowAnswer>& answers, TokenSums* sums);
  // Of examples that are computed together.
  struct Answered {
    RowAnswer answer;
    std::vector<int32_t> prompt;  // where texts go on
  };
  Result<std::vector<Answered>> AskTogether(std::span<const int64_t> examples, TokenSums* sums);
  Status AnswerRows(std::vector<Answered>& rows, TokenSums* sums);
  Status AnswerTokens(std::vector<Answered>& rows, TokenSums* sums);
  void KeepPrompts(std::vector<Answered>& rows) const;
  Status AddGenerated(std::vector<RowAnswer>& answers, const GoOnWriting& go_on);

  LoadedModel& model_;
  const Examples& examples_;
  const PredictionWriter& writer_;
  const spec::GenerateSpec generate_;
  const std::function<std::string_view(int64_t)> file_of_;
  const int64_t block_rows_, ask_rows_;
  BatchBuffer buffer_;
  std::vector<int64_t> numbers_;
  std::vector<std::vector<int32_t>> prompts_;  // of an Ask's answers
  std::vector<float> logits_;
};

}  // namespace lepton::worker
