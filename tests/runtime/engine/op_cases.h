// Inputs for every op, in several sizes: what the gradient check and the kernel parity test run
// over. A new op needs its case here, or both fail.
#pragma once

#include <string>
#include <vector>

#include "runtime/graph/kernel_table.h"
#include "runtime/tensor/buffer.h"

namespace lepton::engine_test {

struct HostTensor {
  TensorType type;
  Buffer data;

  TensorView view() { return {data.data(), type}; }
  std::span<float> floats() { return view().span<float>(); }
};

HostTensor MakeTensor(TensorType type);
// Uniform in [low, high), the same for the same seed; for bf16 rounded, for i32 floored.
HostTensor RandomTensor(TensorType type, uint64_t seed, double low = -2, double high = 2);
HostTensor Copy(const HostTensor& tensor);

struct OpCase {
  std::string label;
  graph::Attributes attributes;
  std::vector<HostTensor> inputs;
  std::vector<int> with_gradient;  // inputs that the op differentiates by
  double step = 1e-2;              // of the finite difference
  const graph::Op* op = nullptr;   // null: that of ops::OpList()
};

inline TensorType F32(Shape shape) {
  return {DType::kF32, std::move(shape)};
}

template <typename... Tensors>
OpCase MakeCase(std::string label, graph::Attributes attributes, std::vector<int> with_gradient,
                Tensors... tensors) {
  OpCase op_case{std::move(label), std::move(attributes), {}, std::move(with_gradient)};
  (op_case.inputs.push_back(std::move(tensors)), ...);
  return op_case;
}

// Empty for an unknown op, or one that has no kernel for the element type of its first input.
std::vector<OpCase> CasesFor(std::string_view op, DType dtype, int64_t rows, int64_t n);

// The cases of one family of ops; each adds nothing for other ops. In <family>_cases.cc.
void AddShapeCases(std::string_view op, DType dtype, int64_t rows, int64_t n,
                   std::vector<OpCase>& cases);
void AddImageCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases);
void AddTransformerCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases);
void AddBroadcastCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases);

// Runs one kernel on a case, on the accelerator if there is one; the outputs' types come from the
// op's own shape rule. Inputs that the op changes are changed.
std::vector<HostTensor> RunKernel(const graph::KernelEntry& entry, OpCase& op_case,
                                  const graph::RunState& state, Accelerator* accelerator = nullptr);
// Whether the kernel takes the case on this CPU, or this accelerator.
bool CanRun(const graph::KernelEntry& entry, const OpCase& op_case,
            Accelerator* accelerator = nullptr);

}  // namespace lepton::engine_test
