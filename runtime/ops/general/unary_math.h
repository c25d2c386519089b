// unary_math(x: any type) -> y: the attribute `function` applied to each element, for
// imported models (relu, tanh, sigmoid and gelu have ops of their own). Gradient, of f32 only, for
// abs cos erf exp log neg reciprocal sigmoid sin sqrt tanh; that of ceil floor round sign is 0.
//   floating types: abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor log neg
//                   reciprocal round (half to even) sigmoid sign sin sinh sqrt tan tanh
//                   and is_nan is_inf is_pos_inf is_neg_inf, which give bool
//   integers: abs neg sign bit_not;  bool: not
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& UnaryMathOp();
// What `function` may be for an x of this type.
std::vector<std::string_view> UnaryFunctions(DType dtype);

}  // namespace lepton::ops::general
