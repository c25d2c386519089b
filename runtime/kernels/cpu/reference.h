// The plain kernels: one simple loop nest per op, sums in double, no threads. They run everything,
// are the last of each list, and are what faster kernels are tested against.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::reference {

using graph::KernelContext;

void Matmul(const KernelContext& context);       // f32 or bf16
void BatchMatmul(const KernelContext& context);  // f32 or bf16
void MatmulInt8(const KernelContext& context);

void Conv2d(const KernelContext& context);
void Conv2dInt8(const KernelContext& context);
void Conv2dInputGrad(const KernelContext& context);
void Conv2dWeightGrad(const KernelContext& context);

// f32, bf16 or i32; gradients f32.
void Reshape(const KernelContext& context);
void TensorCopy(const KernelContext& context);
void TensorSum(const KernelContext& context);
void Transpose(const KernelContext& context);
void Slice(const KernelContext& context);
void SliceGrad(const KernelContext& context);
void Concat(const KernelContext& context);
void Gather(const KernelContext& context);
void GatherGrad(const KernelContext& context);

void Add(const KernelContext& context);
void Sub(const KernelContext& context);
void Mul(const KernelContext& context);
void Div(const KernelContext& context);
void BroadcastTo(const KernelContext& context);
void SumTo(const KernelContext& context);
void SumRows(const KernelContext& context);
void Scale(const KernelContext& context);
void Fill(const KernelContext& context);
void Cast(const KernelContext& context);
void BiasAdd(const KernelContext& context);
void Relu(const KernelContext& context);
void ReluGrad(const KernelContext& context);
void Gelu(const KernelContext& context);
void GeluGrad(const KernelContext& context);
void GeluTanh(const KernelContext& context);
void GeluTanhGrad(const KernelContext& context);
void Tanh(const KernelContext& context);
void TanhGrad(const KernelContext& context);
void Sigmoid(const KernelContext& context);
void SigmoidGrad(const KernelContext& context);
void Dropout(const KernelContext& context);
void Silu(const KernelContext& context);
void SiluGrad(const KernelContext& context);

void Attention(const KernelContext& context);
void AttentionGrad(const KernelContext& context);
void PackedAttention(const KernelContext& context);
void PackedAttentionGrad(const KernelContext& context);
void CachedAttention(const KernelContext& context);
void Rope(const KernelContext& context);
void RopeAngles(const KernelContext& context);
void RmsNorm(const KernelContext& context);
void RmsNormGrad(const KernelContext& context);

void Positions(const KernelContext& context);
void PoolTokens(const KernelContext& context);
void PoolTokensGrad(const KernelContext& context);

void LayerNorm(const KernelContext& context);
void LayerNormGrad(const KernelContext& context);
void Softmax(const KernelContext& context);
void SoftmaxGrad(const KernelContext& context);
void LogSoftmax(const KernelContext& context);
void LogSoftmaxGrad(const KernelContext& context);
void Reduce(const KernelContext& context);
void Expand(const KernelContext& context);

void CrossEntropy(const KernelContext& context);
void CrossEntropyGrad(const KernelContext& context);
void LinearCrossEntropy(const KernelContext& context);      // f32 or bf16
void LinearCrossEntropyGrad(const KernelContext& context);  // f32 or bf16
void BinaryCrossEntropy(const KernelContext& context);
void BinaryCrossEntropyGrad(const KernelContext& context);
void MeanSquaredError(const KernelContext& context);
void MeanSquaredErrorGrad(const KernelContext& context);
void Distillation(const KernelContext& context);
void DistillationGrad(const KernelContext& context);

}  // namespace lepton::kernels::reference
