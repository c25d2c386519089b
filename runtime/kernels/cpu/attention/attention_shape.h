// The extents of an attention node, where its heads lie, and what each query may see. Threads:
// plain values.
#pragma once

#include <algorithm>
#include <cmath>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

// Which inputs and outputs of a node are what. In a packed one queries, keys and values are columns
// of one input, in this order, and so are their gradients.
struct AttentionPlaces {
  bool packed;
  int q, k, v, bias;
  int y, log_sum, dy;  // gradient only
  int dq, dk, dv;
};
inline constexpr AttentionPlaces kAttentionPlaces{false, 0, 1, 2, 3, -1, -1, -1, -1, -1, -1};
inline constexpr AttentionPlaces kPackedPlaces{true, 0, 0, 0, 1, -1, -1, -1, -1, -1, -1};
// Of the texts' new rows alone, without what is cached. No key bias.
inline constexpr AttentionPlaces kCachedPlaces{false, 0, 1, 2, 99, -1, -1, -1, -1, -1, -1};
inline constexpr AttentionPlaces kGradPlaces{false, 0, 1, 2, 6, 3, 4, 5, 0, 1, 2};
inline constexpr AttentionPlaces kPackedGradPlaces{true, 0, 0, 0, 4, 1, 2, 3, 0, 0, 0};

struct AttentionShape {
  AttentionShape(const graph::KernelContext& context, const AttentionPlaces& places)
      : AttentionShape(context.input(places.q).shape(), context.input(places.k).shape(),
                       context.attributes(), places.packed) {}
  AttentionShape(const Shape& q, const Shape& k, const graph::Attributes& attributes,
                 bool packed = false)
      : batch(q[0]),
        heads(attributes.Int("heads", 1)),
        kv_heads(attributes.Int("kv_heads", heads)),
        queries(q[1]),
        keys(k[1]),
        size(q[2] / (packed ? heads + 2 * kv_heads : heads)),
        q_pitch(q[2]),
        kv_pitch(k[2]),
        k_start(packed ? heads * size : 0),
        v_start(packed ? (heads + kv_heads) * size : 0),
        scale(attributes.Float("scale", 1 / std::sqrt(static_cast<double>(size)))),
        causal(attributes.Int("causal") != 0),
        window(attributes.Int("window")) {}

  int64_t group() const { return heads / kv_heads; }
  // The keys that query i sees: [FirstKey, EndKey), never empty.
  int64_t EndKey(int64_t i) const { return causal ? i + keys - queries + 1 : keys; }
  int64_t FirstKey(int64_t i) const {
    return window > 0 ? std::max<int64_t>(0, EndKey(i) - window) : 0;
  }
  // Where a head's row begins, in elements.
  int64_t QueryOffset(int64_t image, int64_t head, int64_t query) const {
    return (image * queries + query) * q_pitch + head * size;
  }
  int64_t KeyOffset(int64_t image, int64_t kv_head, int64_t key) const {
    return (image * keys + key) * kv_pitch + k_start + kv_head * size;
  }
  int64_t ValueOffset(int64_t image, int64_t kv_head, int64_t key) const {
    return (image * keys + key) * kv_pitch + v_start + kv_head * size;
  }
  // The same in y.
  int64_t y_pitch() const { return heads * size; }
  int64_t OutputOffset(int64_t image, int64_t head, int64_t query) const {
    return (image * queries + query) * y_pitch() + head * size;
  }

  int64_t batch, heads, kv_heads, queries, keys, size;
  int64_t q_pitch, kv_pitch;  // elements from a row to the next
  int64_t k_start, v_start;   // of the first head within a row
  double scale;
  bool causal;
  int64_t window;
};

}  // namespace lepton::kernels
