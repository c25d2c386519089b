// matmul_int8(x, w; transpose_b) = x * op(w), in 8-bit integers: x [.., k] f32 or bf16, w [k, n]
// f32
// ([n, k] with transpose_b), the result f32 [.., n].
//
// Both sides are quantised symmetrically as they are, with no calibration: each row of x and each
// column of op(w) by its own scale s = (its largest magnitude) / 127, q = round(v / s), ties to
// even; the result is (sum of q_x * q_w, exact in 32 bits) * (s_x * s_w). So a row depends on
// itself and on w alone, and has the same bits in any batch and on any CPU. A row or column with a
// NaN or an infinity gives NaN; one whose magnitudes are below 1e-30 counts as zeros. (The scheme
// is that of dynamic quantisation, per token and per channel: Yao et al. 2022, "ZeroQuant",
// section 4.1.)
//
// For inference: it has no gradient. k at most kInt8MostInner, so that the sum cannot overflow.
#pragma once

#include <cstdint>

#include "runtime/graph/op.h"

namespace lepton::ops {
inline constexpr int64_t kInt8MostInner = 131'072;
const graph::Op& MatmulInt8Op();
}  // namespace lepton::ops
