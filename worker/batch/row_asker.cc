#include "worker/batch/row_asker.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/data/length_groups.h"
#include "worker/train/evaluation.h"

namespace lepton::worker {
namespace {

double TokenLoss(std::span<const float> logits, int32_t target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - top);
  return top + std::log(sum) - logits[target];
}

// Whole blocks of at least so many texts.
constexpr int64_t kTextsToWrite = 256;

int64_t AskRows(int64_t block_rows, const spec::GenerateSpec& generate) {
  if (generate.max_tokens < 1) return block_rows;
  return (kTextsToWrite + block_rows - 1) / block_rows * block_rows;
}

}  // namespace

RowAsker::RowAsker(LoadedModel& model, const Examples& examples, const PredictionWriter& writer,
                   const spec::GenerateSpec& generate,
                   std::function<std::string_view(int64_t)> file_of)
    : model_(model),
      examples_(examples),
      writer_(writer),
      generate_(generate),
      file_of_(std::move(file_of)),
      block_rows_(BlockRows(examples, model.signature())),
      ask_rows_(AskRows(block_rows_, generate)),
      buffer_(model.signature()) {}

Result<std::string> RowAsker::Ask(int64_t first, int64_t last, TokenSums* sums,
                                  const GoOnWriting& go_on) {
  std::vector<RowAnswer> answers;
  prompts_.clear();
  for (int64_t begin = first; begin < last; begin += block_rows_) {
    LEPTON_RETURN_IF_ERROR(AskBlock(begin, std::min(last, begin + block_rows_), answers, sums));
  }
  if (generate_.max_tokens > 0) LEPTON_RETURN_IF_ERROR(AddGenerated(answers, go_on));
  std::string lines;
  for (const RowAnswer& answer : answers) writer_.Append(answer, &lines);
  return lines;
}

Status RowAsker::AskBlock(int64_t first, int64_t last, std::vector<RowAnswer>& answers,
                          TokenSums* sums) {
  numbers_.resize(last - first);
  std::iota(numbers_.begin(), numbers_.end(), first);
  std::vector<Answered> rows(numbers_.size());
  for (const std::vector<int64_t>& together : GroupsByLength(examples_, numbers_)) {
    LEPTON_ASSIGN_OR_RETURN(std::vector<Answered> some, AskTogether(together, sums));
    for (size_t i = 0; i < together.size(); ++i) rows[together[i] - first] = std::move(some[i]);
  }
  for (Answered& row : rows) {
    answers.push_back(std::move(row.answer));
    prompts_.push_back(std::move(row.prompt));
  }
  return Status::Ok();
}

Result<std::vector<RowAsker::Answered>> RowAsker::AskTogether(std::span<const int64_t> examples,
                                                              TokenSums* sums) {
  LEPTON_RETURN_IF_ERROR(examples_.Fill(0, examples, buffer_));
  std::vector<Answered> rows(examples.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    RowAnswer& answer = rows[i].answer;
    answer.row = examples_.row_number(examples[i]);
    if (file_of_) answer.file = file_of_(answer.row);
  }
  if (!model_.signature().per_token || writer_.losses()) {
    LEPTON_RETURN_IF_ERROR(AnswerRows(rows, sums));
  }
  if (generate_.max_tokens > 0) KeepPrompts(rows);
  return rows;
}

Status RowAsker::AnswerRows(std::vector<Answered>& rows, TokenSums* sums) {
  const nn::Batch batch = buffer_.batch();
  if (model_.signature().per_token) return AnswerTokens(rows, sums);
  const int64_t outputs = model_.outputs();
  logits_.resize(nn::Predictions(model_.signature(), batch) * outputs);
  LEPTON_RETURN_IF_ERROR(model_.Forward(batch, logits_));
  for (size_t i = 0; i < rows.size(); ++i) {
    RowAnswer& answer = rows[i].answer;
    const auto logits = std::span<const float>(logits_).subspan(i * outputs, outputs);
    const Status said = CheckAnswer(model_.manifest(), logits);
    LOG_IF(WARNING, !said.ok()) << "row " << answer.row << ": " << said.message();
    if (model_.manifest().loss == "mse") {
      answer.values.assign(logits.begin(), logits.end());
    } else {
      answer.prediction = Decode(model_.manifest(), logits);
    }
  }
  return Status::Ok();
}

Status RowAsker::AnswerTokens(std::vector<Answered>& rows, TokenSums* sums) {
  const int64_t outputs = model_.outputs(), sequence = buffer_.sequence();
  std::vector<double> losses(rows.size());
  const auto add = [&](int64_t first, std::span<const float> logits) {
    const int64_t end = first + static_cast<int64_t>(logits.size()) / outputs;
    for (int64_t at = first; at < end; ++at) {
      const int32_t target = buffer_.classes[at];
      if (target == nn::kNoTarget) continue;
      RowAnswer& answer = rows[at / sequence].answer;
      if (target >= outputs) {
        return InvalidArgument("row " + std::to_string(answer.row) + ": token " +
                               std::to_string(target) + " is none of the model's " +
                               std::to_string(outputs));
      }
      losses[at / sequence] += TokenLoss(logits.subspan((at - first) * outputs, outputs), target);
      ++answer.tokens;
    }
    return Status::Ok();
  };
  LEPTON_RETURN_IF_ERROR(model_.ForwardPieces(buffer_.batch(), add));
  for (size_t i = 0; i < rows.size(); ++i) {
    RowAnswer& answer = rows[i].answer;
    answer.loss = answer.tokens > 0 ? losses[i] / static_cast<double>(answer.tokens) : NAN;
    if (std::isnan(losses[i])) {  // nor in the figures of all
      LOG(WARNING) << "row " << answer.row << ": the model's answer is not a number";
      continue;
    }
    sums->loss += losses[i];
    sums->tokens += answer.tokens;
  }
  return Status::Ok();
}

// A row's own tokens are its prompt: the first, and what follows each as its target. What stands
// behind the last target is padding.
void RowAsker::KeepPrompts(std::vector<Answered>& rows) const {
  const int64_t sequence = buffer_.sequence();
  const nn::Batch batch = buffer_.batch();
  const auto tokens = batch.inputs.front().span<const int32_t>();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<int32_t>& prompt = rows[i].prompt;
    const int64_t begin = static_cast<int64_t>(i) * sequence;
    prompt.push_back(tokens[begin]);  // there even when nothing follows it
    for (int64_t t = 0; t < sequence; ++t) {
      const int32_t next = buffer_.classes[begin + t];
      if (next == nn::kNoTarget) break;
      prompt.push_back(next);
    }
  }
}

Status RowAsker::AddGenerated(std::vector<RowAnswer>& answers, const GoOnWriting& go_on) {
  std::vector<int64_t> rows;
  for (const RowAnswer& answer : answers) rows.push_back(answer.row);
  LEPTON_ASSIGN_OR_RETURN(const auto said, Generate(model_, prompts_, rows, generate_, go_on));
  for (size_t i = 0; i < answers.size(); ++i) {
    if (model_.encoder() != nullptr) {
      LEPTON_ASSIGN_OR_RETURN(answers[i].generated, model_.encoder()->Decode(said[i]));
      continue;
    }
    for (const uint32_t id : said[i]) {
      answers[i].generated += (answers[i].generated.empty() ? "" : " ") + std::to_string(id);
    }
  }
  return Status::Ok();
}

}  // namespace lepton::worker
