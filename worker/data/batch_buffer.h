// The memory of one micro-batch: a model's inputs, by name, and their targets. Filled by Examples,
// read as nn::Batch; kept and filled again.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/nn/training_program.h"
#include "runtime/tensor/buffer.h"
#include "worker/data/sample_count.h"

namespace lepton::worker {

class BatchBuffer {
 public:
  explicit BatchBuffer(const nn::Signature& signature) : signature_(signature) {}

  // Room for `rows` rows, and for texts of `sequence` tokens; what is in it is not defined. Targets
  // are emptied.
  void Resize(int64_t rows, int64_t sequence = 0);

  // An input's elements, row-major; nullptr when the model takes no such input.
  float* Floats(std::string_view input);
  int32_t* Ints(std::string_view input);

  int64_t rows() const { return rows_; }
  int64_t sequence() const { return sequence_; }
  const nn::Signature& signature() const { return signature_; }

  // One a prediction, as of nn::Targets.
  std::vector<int32_t> classes;
  std::vector<float> values, teacher_logits;

  // The training examples that it has, where BatchSource filled it.
  SampleCount used;

  // Views, valid until the buffer changes. There is at least one row.
  nn::Batch batch() const;
  nn::Targets targets() const { return {classes, values, teacher_logits}; }

 private:
  void* Find(std::string_view input, DType type);

  const nn::Signature signature_;
  int64_t rows_ = 0, sequence_ = 0;
  std::vector<Buffer> memory_;  // as signature_.inputs
};

}  // namespace lepton::worker
