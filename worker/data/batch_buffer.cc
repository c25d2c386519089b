#include "worker/data/batch_buffer.h"

#include <glog/logging.h>

namespace lepton::worker {

void BatchBuffer::Resize(int64_t rows, int64_t sequence) {
  rows_ = rows;
  sequence_ = sequence;
  classes.clear();
  values.clear();
  teacher_logits.clear();
  memory_.resize(signature_.inputs.size());
  for (size_t i = 0; i < memory_.size(); ++i) {
    TensorType type = signature_.inputs[i].type;
    type.shape = type.shape.WithBatch(rows, sequence);
    if (memory_[i].size() < type.bytes()) memory_[i] = Buffer(type.bytes());
  }
}

void* BatchBuffer::Find(std::string_view input, DType type) {
  for (size_t i = 0; i < signature_.inputs.size(); ++i) {
    if (signature_.inputs[i].name != input) continue;
    CHECK(signature_.inputs[i].type.dtype == type) << input;
    return memory_[i].data();
  }
  return nullptr;
}

float* BatchBuffer::Floats(std::string_view input) {
  return static_cast<float*>(Find(input, DType::kF32));
}

int32_t* BatchBuffer::Ints(std::string_view input) {
  return static_cast<int32_t*>(Find(input, DType::kI32));
}

nn::Batch BatchBuffer::batch() const {
  nn::Batch batch;
  for (size_t i = 0; i < memory_.size(); ++i) {
    TensorType type = signature_.inputs[i].type;
    type.shape = type.shape.WithBatch(rows_, sequence_);
    batch.inputs.push_back({const_cast<void*>(memory_[i].data()), std::move(type)});
  }
  return batch;
}

}  // namespace lepton::worker
