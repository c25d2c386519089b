// Tensors from elsewhere, such as a mapped file, as a program's parameters, by name.
// Ownership: borrows the tensors' memory. Threads: pure functions; StoredWeights: one caller.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/nn/training_program.h"
#include "runtime/tensor/buffer.h"

namespace lepton::nn {

struct SourceTensor {
  DType dtype = DType::kF32;  // f32, f16 or bf16; f16 and bf16 become f32 exactly
  std::vector<int64_t> shape;
  const void* data = nullptr;  // row-major, of any alignment

  int64_t elements() const;
};
using SourceTensors = std::map<std::string, SourceTensor>;

// For models that start on another one's body: parameters of the head that the tensors do not have,
// or have in another shape, keep their values; tensors of a head that the program does not have are
// left out. Returns the names of the parameters that began anew.
struct CopiedWeights {
  std::vector<std::string> fresh;
};
Result<CopiedWeights> CopyWithFreshHead(const SourceTensors& tensors,
                                        const std::vector<ParameterView>& parameters,
                                        std::span<float> weights);

// Into a flat buffer. kInvalidArgument names the first parameter that is missing or of another
// shape, or the tensor that no parameter takes.
Status CopyWeights(const SourceTensors& tensors, const std::vector<ParameterView>& parameters,
                   std::span<float> weights);

// The same errors, and nothing is copied.
Status CheckWeights(const SourceTensors& tensors, const std::vector<ParameterView>& parameters);

// Tensors as the parameters of programs (InferenceProgram::Bind), which read them in f32: where
// they lie if that is f32 and aligned, else from a copy that is there while somebody reads it. The
// tensors' memory must outlive it and stay as it is.
class StoredWeights {
 public:
  // Errors as of CopyWeights.
  static Result<std::shared_ptr<StoredWeights>> Make(const SourceTensors& tensors,
                                                     const std::vector<ParameterView>& parameters);
  // Of f32, one place per parameter, aligned to 4 bytes.
  explicit StoredWeights(const std::vector<const float*>& places);

  size_t size() const { return tensors_.size(); }  // parameters
  // Where a parameter is stored in bf16 or f16, aligned to 2 bytes; else null.
  const SourceTensor* Halves(size_t parameter) const;
  // A parameter's numbers for as long as the caller keeps this; those who keep a copy share it.
  std::shared_ptr<const float> Floats(size_t parameter);

  // Of the copies that are there, and the most that were at once; and how many were made so far.
  size_t copied_bytes() const;
  size_t most_copied_bytes() const { return most_copied_bytes_; }
  int64_t copies_made() const { return copies_made_; }

 private:
  StoredWeights() = default;

  std::vector<SourceTensor> tensors_;
  std::vector<std::weak_ptr<Buffer>> copies_;  // by parameter
  size_t most_copied_bytes_ = 0;
  int64_t copies_made_ = 0;
};

}  // namespace lepton::nn
