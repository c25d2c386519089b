// Numbered examples of one part of a dataset, ready to learn from, whatever they are: rows of
// features, pictures, texts, windows of a stream of tokens. Training, evaluation, distillation,
// search and batch prediction read all of them through this.
// Threads: Fill and the rest from any number of threads at once. Ownership: an example source owns
// or shares what it reads from.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "worker/data/batch_buffer.h"

namespace lepton::worker {

class Examples {
 public:
  virtual ~Examples() = default;

  // Of one epoch; the same in every epoch.
  virtual int64_t rows() const = 0;

  // Puts these examples, as they are in `epoch`, and their targets into `out`. What an epoch
  // changes (augmentation, where windows begin) follows from (seed, epoch, example) alone. An error
  // names the example as its dataset does. Each example that may come from a disk counts as
  // progress (progress::Tick): a batch of them may take longer than a thread may stand still.
  virtual Status Fill(uint64_t epoch, std::span<const int64_t> examples,
                      BatchBuffer& out) const = 0;

  // The row of the dataset that an example is, from 0; for messages and predictions.
  virtual int64_t row_number(int64_t example) const { return example; }

  // Answers that a model gives for one example, at most: 1, or one a token.
  virtual int64_t predictions() const { return 1; }

  // Tokens that Fill makes of it alone, padding included; 1 where all are of one size.
  virtual int64_t padded_length(int64_t) const { return 1; }

  // About how much Fill writes for one example: whether it is worth a thread.
  virtual int64_t example_bytes() const = 0;

  // The answers by example, where there are any in memory: class indices, values for regression and
  // binary labels. Language models have neither: their answers are the tokens.
  std::span<const int32_t> classes() const { return classes_; }
  std::span<const float> values() const { return values_; }

  void SetLabels(std::vector<int32_t> classes, std::vector<float> values) {
    classes_ = std::move(classes);
    values_ = std::move(values);
  }

 protected:
  void FillLabels(std::span<const int64_t> examples, BatchBuffer& out) const;

 private:
  std::vector<int32_t> classes_;
  std::vector<float> values_;
};

using ExamplesPtr = std::shared_ptr<const Examples>;

// Rows of numbers, normalised.
class TableExamples final : public Examples {
 public:
  // `x`: [rows, features]; `row_numbers`: of the table.
  TableExamples(std::vector<int64_t> row_numbers, std::vector<float> x, int64_t features)
      : row_numbers_(std::move(row_numbers)), x_(std::move(x)), features_(features) {}

  int64_t rows() const override { return static_cast<int64_t>(row_numbers_.size()); }
  Status Fill(uint64_t epoch, std::span<const int64_t> examples, BatchBuffer& out) const override;
  int64_t row_number(int64_t example) const override { return row_numbers_[example]; }
  int64_t example_bytes() const override { return features_ * 4; }

  std::span<const int64_t> row_numbers() const { return row_numbers_; }
  std::span<const float> x() const { return x_; }

 private:
  const std::vector<int64_t> row_numbers_;
  const std::vector<float> x_;
  const int64_t features_;
};

// A pseudo-random number for each example of an epoch, the same wherever it is drawn: the counter
// of augmentation. `purpose` tells draws for one example apart.
uint64_t ExampleDraw(uint64_t seed, uint64_t epoch, uint64_t example, uint64_t purpose);

}  // namespace lepton::worker
