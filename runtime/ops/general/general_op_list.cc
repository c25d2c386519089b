#include "runtime/ops/general/general_op_list.h"

#include "runtime/ops/general/axis_math.h"
#include "runtime/ops/general/binary_math.h"
#include "runtime/ops/general/data_movement.h"
#include "runtime/ops/general/indexing.h"
#include "runtime/ops/general/literal.h"
#include "runtime/ops/general/unary_math.h"

namespace lepton::ops::general {

std::vector<const graph::Op*> GeneralOps() {
  return {
      &ArgExtremeOp(), &BinaryMathOp(),      &ConstantOp(),
      &ConvertOp(),    &CumulativeSumOp(),   &GatherElementsOp(),
      &GatherNdOp(),   &GeneralMatmulOp(),   &IndexRangeOp(),
      &JoinOp(),       &PadConstantOp(),     &ReduceAxesOp(),
      &RepeatOp(),     &ScatterElementsOp(), &ScatterNdOp(),
      &SelectOp(),     &StridedOp(),         &TakeOp(),
      &TopKOp(),       &UnaryMathOp(),
  };
}

}  // namespace lepton::ops::general
