#include "runtime/ops/op_list.h"

#include "runtime/ops/add.h"
#include "runtime/ops/bias_add.h"
#include "runtime/ops/binary_cross_entropy.h"
#include "runtime/ops/broadcast_to.h"
#include "runtime/ops/cast.h"
#include "runtime/ops/cross_entropy.h"
#include "runtime/ops/distillation.h"
#include "runtime/ops/div.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/fill.h"
#include "runtime/ops/gelu.h"
#include "runtime/ops/layer_norm.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/mse.h"
#include "runtime/ops/mul.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/relu.h"
#include "runtime/ops/scale.h"
#include "runtime/ops/sigmoid.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/sub.h"
#include "runtime/ops/tanh.h"

namespace lepton::ops {

const graph::OpSet& OpList() {
  static const graph::OpSet set({
      &AddOp(),
      &BiasAddOp(),
      &BinaryCrossEntropyOp(),
      &BinaryCrossEntropyGradOp(),
      &BroadcastToOp(),
      &CastOp(),
      &CrossEntropyOp(),
      &CrossEntropyGradOp(),
      &DistillationOp(),
      &DistillationGradOp(),
      &DivOp(),
      &DropoutOp(),
      &ExpandOp(),
      &FillOp(),
      &GeluOp(),
      &GeluGradOp(),
      &LayerNormOp(),
      &LayerNormGradOp(),
      &LogSoftmaxOp(),
      &LogSoftmaxGradOp(),
      &MatmulOp(),
      &MeanSquaredErrorOp(),
      &MeanSquaredErrorGradOp(),
      &MulOp(),
      &ReduceOp(),
      &ReluOp(),
      &ReluGradOp(),
      &ScaleOp(),
      &SigmoidOp(),
      &SigmoidGradOp(),
      &SoftmaxOp(),
      &SoftmaxGradOp(),
      &SubOp(),
      &SumToOp(),
      &TanhOp(),
      &TanhGradOp(),
  });
  return set;
}

}  // namespace lepton::ops
