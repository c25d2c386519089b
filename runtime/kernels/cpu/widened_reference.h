// A plain f32 kernel for nodes with bf16 values: inputs widened before it, outputs rounded after
// it.
#pragma once

#include <deque>
#include <vector>

#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::reference {

template <void (*function)(const KernelContext&)>
void Widened(const KernelContext& context) {
  graph::Node node;
  node.attributes = context.attributes();
  std::vector<TensorView> views;
  std::deque<Buffer> memory;
  const auto add = [&](const TensorView& view, std::vector<graph::ValueId>& ids) {
    ids.push_back(static_cast<graph::ValueId>(views.size()));
    if (view.type.dtype != DType::kBF16) {
      views.push_back(view);
      return;
    }
    const TensorType wide{DType::kF32, view.type.shape};
    views.push_back({memory.emplace_back(wide.bytes()).data(), wide});
  };
  for (int i = 0; i < context.inputs(); ++i) {
    add(context.input(i), node.inputs);
    if (context.input(i).type.dtype != DType::kBF16) continue;
    for (int64_t j = 0; j < context.input(i).elements(); ++j) {
      views.back().as<float>()[j] = BF16::ToFloat(context.input(i).as<BF16>()[j]);
    }
  }
  for (int i = 0; i < context.outputs(); ++i) add(context.output(i), node.outputs);
  function(KernelContext(views.data(), node, context.run()));
  for (int i = 0; i < context.outputs(); ++i) {
    if (context.output(i).type.dtype != DType::kBF16) continue;
    const float* from = views[node.outputs[i]].as<float>();
    for (int64_t j = 0; j < context.output(i).elements(); ++j) {
      context.output(i).as<BF16>()[j] = BF16::FromFloat(from[j]);
    }
  }
}

}  // namespace lepton::kernels::reference
