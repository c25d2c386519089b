#include "worker/batch/row_asker.h"

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
      buffer_(model.signature()) {}

Result<std::string> RowAsker::Ask(int64_t first, int64_t last, TokenSums* sums) {
  std::string lines;
  for (int64_t begin = first; begin < last; begin += block_rows_) {
    LEPTON_RETURN_IF_ERROR(AskBlock(begin, std::min(last, begin + block_rows_), &lines, sums));
  }
  return lines;
}

Status RowAsker::AskBlock(int64_t first, int64_t last, std::string* out, TokenSums* sums) {
  numbers_.resize(last - first);
  std::iota(numbers_.begin(), numbers_.end(), first);
  std::vector<RowAnswer> answers(numbers_.size());
  for (const std::vector<int64_t>& together : GroupsByLength(examples_, numbers_)) {
    LEPTON_ASSIGN_OR_RETURN(std::vector<RowAnswer> some, AskTogether(together, sums));
    for (size_t i = 0; i < together.size(); ++i) answers[together[i] - first] = std::move(some[i]);
  }
  for (const RowAnswer& answer : answers) writer_.Append(answer, out);
  return Status::Ok();
}

Result<std::vector<RowAnswer>> RowAsker::AskTogether(std::span<const int64_t> examples,
                                                     TokenSums* sums) {
  LEPTON_RETURN_IF_ERROR(examples_.Fill(0, examples, buffer_));
  const nn::Batch batch = buffer_.batch();
  const int64_t outputs = model_.outputs();
  logits_.resize(nn::Predictions(model_.signature(), batch) * outputs);
  LEPTON_RETURN_IF_ERROR(model_.Forward(batch, logits_));

  std::vector<RowAnswer> answers(examples.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    answers[i].row = examples_.row_number(examples[i]);
    if (file_of_) answers[i].file = file_of_(answers[i].row);
    if (model_.signature().per_token) continue;
    const auto logits = std::span<const float>(logits_).subspan(i * outputs, outputs);
    if (model_.manifest().loss == "mse") {
      answers[i].values.assign(logits.begin(), logits.end());
    } else {
      answers[i].prediction = Decode(model_.manifest(), logits);
    }
  }
  if (model_.signature().per_token) LEPTON_RETURN_IF_ERROR(AnswerTokens(answers, sums));
  if (generate_.max_tokens > 0) LEPTON_RETURN_IF_ERROR(AddGenerated(answers));
  return answers;
}

Status RowAsker::AnswerTokens(std::vector<RowAnswer>& answers, TokenSums* sums) {
  const int64_t outputs = model_.outputs(), sequence = buffer_.sequence();
  for (size_t i = 0; i < answers.size(); ++i) {
    double sum = 0;
    for (int64_t t = 0; t < sequence; ++t) {
      const int64_t at = static_cast<int64_t>(i) * sequence + t;
      const int32_t target = buffer_.classes[at];
      if (target == nn::kNoTarget) continue;
      sum += TokenLoss(std::span<const float>(logits_).subspan(at * outputs, outputs), target);
      ++answers[i].tokens;
    }
    answers[i].loss = answers[i].tokens > 0 ? sum / static_cast<double>(answers[i].tokens) : NAN;
    sums->loss += sum;
    sums->tokens += answers[i].tokens;
  }
  return Status::Ok();
}

// A row's own tokens are its prompt: the first, and what follows each as its target. What stands
// behind the last target is padding.
Status RowAsker::AddGenerated(std::vector<RowAnswer>& answers) {
  const int64_t sequence = buffer_.sequence();
  const nn::Batch batch = buffer_.batch();
  const auto tokens = batch.inputs.front().span<const int32_t>();
  std::vector<std::vector<int32_t>> prompts(answers.size());
  std::vector<int64_t> rows;
  for (size_t i = 0; i < answers.size(); ++i) {
    const int64_t begin = static_cast<int64_t>(i) * sequence;
    prompts[i].push_back(tokens[begin]);  // there even when nothing follows it
    for (int64_t t = 0; t < sequence; ++t) {
      const int32_t next = buffer_.classes[begin + t];
      if (next == nn::kNoTarget) break;
      prompts[i].push_back(next);
    }
    rows.push_back(answers[i].row);
  }
  LEPTON_ASSIGN_OR_RETURN(const auto said, Generate(model_, prompts, rows, generate_));
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
