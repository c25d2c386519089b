// rope(x [.., s, heads * d]): rotary position embedding (Su et al. 2021): in each head of row i,
// pairs of the first `dims` elements are turned by position i * frequency; the rest pass through.
// Attributes:
//   size (the last axis): d, the elements of a head;
//   base (10000), dims (d), offset (0): the position of the first row;
//   interleaved (0): pairs are (i, i + dims / 2), or with 1 (2i, 2i + 1);
//   scaling ("none"), for longer texts than a model began with:
//     "linear" divides every frequency by `factor`;
//     "llama3" by wavelength, with factor, low_freq_factor, high_freq_factor, original_context
//       (Llama 3.1);
//     "yarn" (Peng et al. 2023, section 3.2) those of pairs that turn seldom: fewer than
//       `beta_slow` (1) times in original_context positions by `factor`, more than `beta_fast` (32)
//       times not at all, and in between by a share that grows from pair to pair. With `truncate`
//       (1) the first and the last pair in between are whole numbers;
//     "longrope" (Ding et al. 2024) divides the frequency of each pair by its own of `factors`;
//   magnitude (1): what cosines and sines are multiplied with, so that attention gets sharper;
//   limit (0: any): the most positions that there may be;
//   inverse (0): with 1, turns back, but grows by the magnitude. That is the gradient.
//
// rope(x [b, s, heads * d], angles f32 [b, s, dims]; size, dims, interleaved): the same where rows
// have positions of their own. Without a gradient.
//
// rope_angles(positions i32 [b, s]; dims, base, scaling with its attributes, magnitude) ->
// f32 [b, s, dims]: for each pair the cosine of its angle, then for each the sine.
#pragma once

#include <vector>

#include "runtime/graph/op.h"

namespace lepton::ops {

const graph::Op& RopeOp();
const graph::Op& RopeAnglesOp();

// Radians per position of each pair; the attributes must have passed Infer.
std::vector<double> RopeFrequencies(int64_t dims, const graph::Attributes& attributes);

}  // namespace lepton::ops
