#include "runtime/ops/op_list.h"

#include "runtime/ops/add.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/batch_matmul.h"
#include "runtime/ops/batch_norm.h"
#include "runtime/ops/bias_add.h"
#include "runtime/ops/binary_cross_entropy.h"
#include "runtime/ops/broadcast_to.h"
#include "runtime/ops/cached_attention.h"
#include "runtime/ops/cast.h"
#include "runtime/ops/concat.h"
#include "runtime/ops/conv2d.h"
#include "runtime/ops/conv2d_int8.h"
#include "runtime/ops/cross_entropy.h"
#include "runtime/ops/distillation.h"
#include "runtime/ops/div.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/fill.h"
#include "runtime/ops/gather.h"
#include "runtime/ops/gelu.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/linear_cross_entropy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/matmul_int8.h"
#include "runtime/ops/mse.h"
#include "runtime/ops/mul.h"
#include "runtime/ops/pool2d.h"
#include "runtime/ops/pool_tokens.h"
#include "runtime/ops/positions.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/relu.h"
#include "runtime/ops/reshape.h"
#include "runtime/ops/rms_norm.h"
#include "runtime/ops/rope.h"
#include "runtime/ops/scale.h"
#include "runtime/ops/sigmoid.h"
#include "runtime/ops/silu.h"
#include "runtime/ops/slice.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/sub.h"
#include "runtime/ops/sum_rows.h"
#include "runtime/ops/tanh.h"
#include "runtime/ops/tensor_ranks.h"
#include "runtime/ops/transpose.h"

namespace lepton::ops {

const graph::OpSet& OpList() {
  static const graph::OpSet set({
      &AddOp(),
      &AttentionGradOp(),
      &AttentionOp(),
      &AveragePool2dGradOp(),
      &AveragePool2dOp(),
      &BatchMatmulOp(),
      &BatchNormApplyOp(),
      &BatchNormGradOp(),
      &BatchNormOp(),
      &BiasAddOp(),
      &BinaryCrossEntropyGradOp(),
      &BinaryCrossEntropyOp(),
      &BroadcastToOp(),
      &CachedAttentionOp(),
      &CastOp(),
      &ConcatOp(),
      &Conv2dInputGradOp(),
      &Conv2dInt8Op(),
      &Conv2dOp(),
      &Conv2dWeightGradOp(),
      &CrossEntropyGradOp(),
      &CrossEntropyOp(),
      &DistillationGradOp(),
      &DistillationOp(),
      &DivOp(),
      &DropoutOp(),
      &ExpandOp(),
      &FillOp(),
      &GatherGradOp(),
      &GatherOp(),
      &GeluGradOp(),
      &GeluOp(),
      &GeluTanhGradOp(),
      &GeluTanhOp(),
      &LayerNormGradOp(),
      &LayerNormOp(),
      &LinearCrossEntropyGradOp(),
      &LinearCrossEntropyOp(),
      &LogSoftmaxGradOp(),
      &LogSoftmaxOp(),
      &MatmulInt8Op(),
      &MatmulOp(),
      &MaxPool2dGradOp(),
      &MaxPool2dOp(),
      &MeanSquaredErrorGradOp(),
      &MeanSquaredErrorOp(),
      &MulOp(),
      &PackedAttentionGradOp(),
      &PackedAttentionOp(),
      &PoolTokensGradOp(),
      &PoolTokensOp(),
      &PositionsOp(),
      &ReduceOp(),
      &ReluGradOp(),
      &ReluOp(),
      &ReshapeOp(),
      &RmsNormGradOp(),
      &RmsNormOp(),
      &RopeAnglesOp(),
      &RopeOp(),
      &ScaleOp(),
      &SigmoidGradOp(),
      &SigmoidOp(),
      &SiluGradOp(),
      &SiluOp(),
      &SliceGradOp(),
      &SliceOp(),
      &SoftmaxGradOp(),
      &SoftmaxOp(),
      &SubOp(),
      &SumRowsOp(),
      &SumToOp(),
      &TanhGradOp(),
      &TanhOp(),
      &TensorCopyOp(),
      &TensorSumOp(),
      &TransposeOp(),
  });
  return set;
}

}  // namespace lepton::ops
