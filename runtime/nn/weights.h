// Tensors from elsewhere, such as a mapped file, as a program's parameters, by name.
// Ownership: borrows the tensors' memory. Threads: pure functions.
#pragma once

#include <map>
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

// One pointer per parameter, for InferenceProgram::Bind: into the tensors' own memory where that is
// f32 and aligned, else into a copy that this owns. Errors as of CopyWeights. The tensors' memory
// must outlive it.
class WeightPointers {
 public:
  static Result<WeightPointers> Make(const SourceTensors& tensors,
                                     const std::vector<ParameterView>& parameters);

  const std::vector<const float*>& pointers() const { return pointers_; }
  size_t copied_bytes() const;

 private:
  std::vector<const float*> pointers_;
  std::vector<Buffer> copies_;
};

}  // namespace lepton::nn
