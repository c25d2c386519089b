// binary_math(a, b: the same type, broadcast) -> y: the attribute `function` of each pair, for
// imported models. Gradient, of f32 only, of min, max and pow (of its base).
//   numbers: add sub mul div min max pow mod (the sign of b) fmod (the sign of a)
//   numbers, giving bool: less less_equal greater greater_equal;  any type: equal
//   integers: shift_left shift_right bit_and bit_or bit_xor;  bool: and or xor
// Integers wrap; a division by the integer 0 gives 0.
// select(condition: bool, a, b: the same type, all broadcast) -> a where the condition, else b.
// Gradient, of f32 only.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& BinaryMathOp();
// What `function` may be for two of this type.
std::vector<std::string_view> BinaryFunctions(DType dtype);
const graph::Op& SelectOp();

}  // namespace lepton::ops::general
