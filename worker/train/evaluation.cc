#include "worker/train/evaluation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "runtime/base/progress.h"
#include "worker/data/length_groups.h"

namespace lepton::worker {
namespace {

constexpr int64_t kMaxBlockRows = 256;

// One flat array of 64-bit words that the ranks fill in at disjoint places and sum: doubles travel
// as their bits, since only one rank's word is not zero.
struct Tally {
  Tally(int64_t blocks, int64_t classes)
      : blocks(blocks), classes(classes), words(4 * blocks + 2 * classes) {}
  int64_t& LossBits(int64_t block) { return words[block]; }
  int64_t& SquaresBits(int64_t block) { return words[blocks + block]; }
  int64_t& Predictions(int64_t block) { return words[2 * blocks + block]; }
  int64_t& Correct(int64_t block) { return words[3 * blocks + block]; }
  std::span<int64_t> ClassRows() { return std::span(words).subspan(4 * blocks, classes); }
  std::span<int64_t> ClassCorrect() {
    return std::span(words).subspan(4 * blocks + classes, classes);
  }

  int64_t blocks, classes;
  std::vector<int64_t> words;
};

// Over blocks of examples of one kind with one program.
class Measurement {
 public:
  Measurement(nn::TrainingProgram& program, const Examples& examples, Evaluation::Kind kind,
              int64_t rows)
      : program_(program),
        examples_(examples),
        kind_(kind),
        rows_(rows),
        block_rows_(BlockRows(examples, program.signature())),
        buffer_(program.signature()) {}

  int64_t blocks() const { return (rows_ + block_rows_ - 1) / block_rows_; }

  Status Measure(int64_t block, Tally& tally) {
    const int64_t first = block * block_rows_;
    numbers_.resize(std::min(block_rows_, rows_ - first));
    std::iota(numbers_.begin(), numbers_.end(), first);
    nn::LossSum loss;
    double squares = 0;
    // Each forward pass may bring all weights from other ranks.
    const bool visits = program_.weights_begin() > 0;
    const auto groups =
        visits ? std::vector<std::vector<int64_t>>{numbers_} : GroupsByLength(examples_, numbers_);
    for (const std::vector<int64_t>& together : groups) {
      LEPTON_RETURN_IF_ERROR(MeasureTogether(block, together, tally, loss, squares));
    }
    tally.LossBits(block) = std::bit_cast<int64_t>(loss.sum);
    tally.Predictions(block) = static_cast<int64_t>(loss.count);
    tally.SquaresBits(block) = std::bit_cast<int64_t>(squares);
    return Status::Ok();
  }

 private:
  Status MeasureTogether(int64_t block, std::span<const int64_t> together, Tally& tally,
                         nn::LossSum& sum, double& squares) {
    LEPTON_RETURN_IF_ERROR(examples_.Fill(0, together, buffer_));
    const nn::Batch batch = buffer_.batch();
    const auto count = [&](int64_t first, std::span<const float> logits) {
      Count(block, together, first, logits, tally, squares);
      return Status::Ok();
    };
    LEPTON_ASSIGN_OR_RETURN(const nn::LossSum loss,
                            program_.EvaluatePieces(batch, buffer_.targets(), count));
    sum.sum += loss.sum;
    sum.count += loss.count;
    return Status::Ok();
  }

  // Predictions from number `first` on.
  void Count(int64_t block, std::span<const int64_t> together, int64_t first,
             std::span<const float> logits, Tally& tally, double& squares) const {
    const int64_t outputs = program_.signature().outputs;
    const int64_t end = first + static_cast<int64_t>(logits.size()) / outputs;
    for (int64_t i = first; i < end; ++i) {
      const auto row = logits.subspan((i - first) * outputs, outputs);
      if (kind_ == Evaluation::Kind::kTokens) {
        if (buffer_.classes[i] == nn::kNoTarget) continue;
        tally.Correct(block) += PredictedClass(row) == buffer_.classes[i];
      } else if (kind_ == Evaluation::Kind::kClasses) {
        const int32_t actual = examples_.classes()[together[i]];
        ++tally.ClassRows()[actual];
        if (PredictedClass(row) == actual) ++tally.ClassCorrect()[actual];
      } else {
        const double error = double{row[0]} - double{examples_.values()[together[i]]};
        squares += error * error;
      }
    }
  }

  nn::TrainingProgram& program_;
  const Examples& examples_;
  const Evaluation::Kind kind_;
  const int64_t rows_, block_rows_;
  BatchBuffer buffer_;
  std::vector<int64_t> numbers_;
};

Evaluation::Kind KindOf(const Examples& examples, const nn::Signature& signature) {
  if (signature.per_token) return Evaluation::Kind::kTokens;
  return examples.classes().empty() ? Evaluation::Kind::kValues : Evaluation::Kind::kClasses;
}

// Sum of squared distances from the labels' mean.
double Spread(std::span<const float> values, int64_t rows) {
  const auto begin = values.begin(), end = begin + rows;
  const double mean = std::accumulate(begin, end, 0.0) / static_cast<double>(rows);
  return std::accumulate(begin, end, 0.0, [mean](double sum, float value) {
    return sum + (value - mean) * (value - mean);
  });
}

// The blocks' figures, added in order.
void Conclude(Tally& tally, const Examples& examples, Evaluation& result) {
  double squares = 0;
  int64_t predictions = 0, correct = 0;
  for (int64_t block = 0; block < tally.blocks; ++block) {
    result.loss += std::bit_cast<double>(tally.LossBits(block));
    squares += std::bit_cast<double>(tally.SquaresBits(block));
    predictions += tally.Predictions(block);
    correct += tally.Correct(block);
  }
  result.loss /= static_cast<double>(std::max<int64_t>(1, predictions));
  if (result.kind == Evaluation::Kind::kValues) {
    const double spread = Spread(examples.values(), result.rows);
    result.mse = squares / static_cast<double>(result.rows);
    result.r2 = spread > 0 ? 1 - squares / spread : 0;
    return;
  }
  if (result.kind == Evaluation::Kind::kClasses) {
    result.class_rows.assign(tally.ClassRows().begin(), tally.ClassRows().end());
    result.class_correct.assign(tally.ClassCorrect().begin(), tally.ClassCorrect().end());
    correct = std::accumulate(result.class_correct.begin(), result.class_correct.end(), int64_t{0});
  } else {
    result.tokens = predictions;
  }
  result.accuracy =
      static_cast<double>(correct) / static_cast<double>(std::max<int64_t>(1, predictions));
}

}  // namespace

int32_t PredictedClass(std::span<const float> logits) {
  if (logits.size() == 1) return logits[0] > 0 ? 1 : 0;
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Status AbortGang(collectives::Communicator& gang, Status cause) {
  if (gang.size() > 1) gang.Abort(cause);
  return cause;
}

int64_t BlockRows(const Examples& examples, const nn::Signature& signature) {
  constexpr int64_t kBytes = 64 << 20;
  const int64_t logits = examples.predictions() * signature.outputs * 4;
  return std::clamp<int64_t>(kBytes / std::max<int64_t>(1, examples.example_bytes() + logits), 1,
                             kMaxBlockRows);
}

Result<Evaluation> Evaluate(nn::TrainingProgram& program, const Examples& examples,
                            int64_t max_rows, collectives::Communicator& gang) {
  Evaluation result;
  result.kind = KindOf(examples, program.signature());
  result.rows = std::min(examples.rows(), max_rows);
  if (result.rows == 0) return result;
  const bool classify = result.kind == Evaluation::Kind::kClasses;
  const int64_t classes = classify ? std::max<int64_t>(2, program.signature().outputs) : 0;
  const auto unknown = [classes](int32_t label) { return label < 0 || label >= classes; };
  const std::span<const int32_t> labels = examples.classes();
  if (classify && std::any_of(labels.begin(), labels.end(), unknown)) {
    return InvalidArgument("evaluation: the data has labels behind the model's " +
                           std::to_string(classes) + " classes");
  }
  Measurement measurement(program, examples, result.kind, result.rows);
  const int64_t blocks = measurement.blocks();
  Tally tally(blocks, classes);
  for (int64_t block = 0; block < blocks; ++block) {
    if (block * gang.size() / blocks != gang.rank()) continue;
    const progress::Computing computing("evaluation block", static_cast<uint64_t>(block));
    Status measured = measurement.Measure(block, tally);
    if (!measured.ok()) return AbortGang(gang, measured.WithContext("evaluation"));
  }
  LEPTON_RETURN_IF_ERROR(program.AwaitForwards().WithContext("evaluation"));
  if (gang.size() > 1) {
    LEPTON_RETURN_IF_ERROR(gang.AllReduce(tally.words.data(), tally.words.data(),
                                          tally.words.size(), collectives::DataType::kInt64,
                                          collectives::ReduceOp::kSum));
  }
  Conclude(tally, examples, result);
  return result;
}

double Evaluation::perplexity() const {
  return std::exp(loss);
}

void Evaluation::AddTo(const std::string& prefix, std::map<std::string, double>& metrics) const {
  if (rows == 0) return;
  metrics[prefix + "/loss"] = loss;
  if (kind == Kind::kTokens) metrics[prefix + "/perplexity"] = perplexity();
  if (kind == Kind::kValues) {
    metrics[prefix + "/mse"] = mse;
    metrics[prefix + "/r2"] = r2;
  } else {
    metrics[prefix + "/accuracy"] = accuracy;
  }
}

}  // namespace lepton::worker
