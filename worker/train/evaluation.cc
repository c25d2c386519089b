#include "worker/train/evaluation.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "worker/train/batch_source.h"

namespace lepton::worker {
namespace {

constexpr int64_t kBlockRows = 256;

// One flat array of 64-bit words that the ranks fill in at disjoint places and sum: doubles travel
// as their bits, since only one rank's word is not zero.
struct Tally {
  Tally(int64_t blocks, int64_t classes) : blocks(blocks), words(2 * blocks + 2 * classes) {}
  int64_t& LossBits(int64_t block) { return words[block]; }
  int64_t& SquaresBits(int64_t block) { return words[blocks + block]; }
  std::span<int64_t> ClassRows() {
    return std::span(words).subspan(2 * blocks, (words.size() - 2 * blocks) / 2);
  }
  std::span<int64_t> ClassCorrect() {
    return std::span(words).subspan(2 * blocks + ClassRows().size());
  }

  int64_t blocks;
  std::vector<int64_t> words;
};

nn::Targets TargetsOf(const DataPart& part, int64_t first, int64_t rows) {
  if (part.values.empty()) return {.classes = std::span(part.classes).subspan(first, rows)};
  return {.values = std::span(part.values).subspan(first, rows)};
}

Status MeasureBlock(nn::TrainingProgram& program, const DataPart& part, int64_t block,
                    int64_t all_rows, std::vector<float>& logits, Tally& tally) {
  const int64_t outputs = program.signature().outputs;
  const int64_t features = static_cast<int64_t>(part.x.size()) / part.rows();
  const int64_t first = block * kBlockRows;
  const int64_t rows = std::min(kBlockRows, all_rows - first);
  logits.resize(rows * outputs);
  const auto x = std::span(part.x).subspan(first * features, rows * features);
  LEPTON_ASSIGN_OR_RETURN(
      const nn::LossSum loss,
      program.Evaluate(nn::Batch::Features(x, features), TargetsOf(part, first, rows), logits));
  tally.LossBits(block) = std::bit_cast<int64_t>(loss.sum);
  double squares = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (part.classes.empty()) {
      const double error = double{logits[i]} - double{part.values[first + i]};
      squares += error * error;
      continue;
    }
    const int32_t actual = part.classes[first + i];
    ++tally.ClassRows()[actual];
    const auto row = std::span<const float>(logits).subspan(i * outputs, outputs);
    if (PredictedClass(row) == actual) ++tally.ClassCorrect()[actual];
  }
  tally.SquaresBits(block) = std::bit_cast<int64_t>(squares);
  return Status::Ok();
}

// Sum of squared distances from the labels' mean.
double Spread(const DataPart& part, int64_t rows) {
  const auto begin = part.values.begin(), end = begin + rows;
  const double mean = std::accumulate(begin, end, 0.0) / static_cast<double>(rows);
  return std::accumulate(begin, end, 0.0, [mean](double sum, float value) {
    return sum + (value - mean) * (value - mean);
  });
}

}  // namespace

int32_t PredictedClass(std::span<const float> logits) {
  if (logits.size() == 1) return logits[0] >= 0 ? 1 : 0;
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Status AbortGang(collectives::Communicator& gang, Status cause) {
  if (gang.size() > 1) gang.Abort(cause);
  return cause;
}

Result<Evaluation> Evaluate(nn::TrainingProgram& program, const DataPart& part, int64_t max_rows,
                            collectives::Communicator& gang) {
  Evaluation result;
  result.rows = std::min(part.rows(), max_rows);
  if (result.rows == 0) return result;
  const bool classify = !part.classes.empty();
  const int64_t blocks = (result.rows + kBlockRows - 1) / kBlockRows;
  const int64_t classes = classify ? std::max<int64_t>(2, program.signature().outputs) : 0;

  Tally tally(blocks, classes);
  std::vector<float> logits;
  for (int64_t block = 0; block < blocks; ++block) {
    if (block * gang.size() / blocks != gang.rank()) continue;
    Status measured = MeasureBlock(program, part, block, result.rows, logits, tally);
    if (!measured.ok()) return AbortGang(gang, measured.WithContext("evaluation"));
  }
  if (gang.size() > 1) {
    LEPTON_RETURN_IF_ERROR(gang.AllReduce(tally.words.data(), tally.words.data(),
                                          tally.words.size(), collectives::DataType::kInt64,
                                          collectives::ReduceOp::kSum));
  }

  double squares = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    result.loss += std::bit_cast<double>(tally.LossBits(block));
    squares += std::bit_cast<double>(tally.SquaresBits(block));
  }
  const double rows = static_cast<double>(result.rows);
  result.loss /= rows;
  if (classify) {
    result.class_rows.assign(tally.ClassRows().begin(), tally.ClassRows().end());
    result.class_correct.assign(tally.ClassCorrect().begin(), tally.ClassCorrect().end());
    const int64_t correct =
        std::accumulate(result.class_correct.begin(), result.class_correct.end(), int64_t{0});
    result.accuracy = static_cast<double>(correct) / rows;
  } else {
    const double spread = Spread(part, result.rows);
    result.mse = squares / rows;
    result.r2 = spread > 0 ? 1 - squares / spread : 0;
  }
  return result;
}

void Evaluation::AddTo(const std::string& prefix, std::map<std::string, double>& metrics) const {
  if (rows == 0) return;
  metrics[prefix + "/loss"] = loss;
  if (!class_rows.empty()) {
    metrics[prefix + "/accuracy"] = accuracy;
  } else {
    metrics[prefix + "/mse"] = mse;
    metrics[prefix + "/r2"] = r2;
  }
}

}  // namespace lepton::worker
