// rope(x [.., s, heads * d]): rotary position embedding (Su et al. 2021): in each head of row i,
// pairs of the first `dims` elements are turned by position i * frequency; the rest pass through.
// Attributes:
//   size (the last axis): d, the elements of a head;
//   base (10000), dims (d), offset (0): the position of the first row;
//   interleaved (0): pairs are (i, i + dims / 2), or with 1 (2i, 2i + 1);
//   scaling ("none"): "linear" divides every frequency by `factor`; "llama3" by wavelength, with
//     factor, low_freq_factor, high_freq_factor, original_context (Llama 3.1);
//   inverse (0): with 1, turns back. That is the gradient.
//
// rope(x [b, s, heads * d], angles f32 [b, s, dims]; size, dims, interleaved): the same where rows
// have positions of their own. Without a gradient.
//
// rope_angles(positions i32 [b, s]; dims, base, scaling with its attributes) -> f32 [b, s, dims]:
// for each pair the cosine of its angle, then for each the sine.
#pragma once

#include <vector>

#include "runtime/graph/op.h"

namespace lepton::ops {

const graph::Op& RopeOp();
const graph::Op& RopeAnglesOp();

// Radians per position of each pair; the attributes must have passed Infer.
std::vector<double> RopeFrequencies(int64_t dims, const graph::Attributes& attributes);

}  // namespace lepton::ops
