// The extents of an attention node and what each query may see. Threads: plain values.
#pragma once

#include <algorithm>
#include <cmath>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

struct AttentionShape {
  AttentionShape(const Shape& q, const Shape& k, const graph::Attributes& attributes)
      : batch(q[0]),
        heads(attributes.Int("heads", 1)),
        kv_heads(attributes.Int("kv_heads", heads)),
        queries(q[1]),
        keys(k[1]),
        size(q[2] / heads),
        scale(attributes.Float("scale", 1 / std::sqrt(static_cast<double>(size)))),
        causal(attributes.Int("causal") != 0),
        window(attributes.Int("window")) {}

  int64_t group() const { return heads / kv_heads; }
  // The keys that query i sees: [FirstKey, EndKey), never empty.
  int64_t EndKey(int64_t i) const { return causal ? i + keys - queries + 1 : keys; }
  int64_t FirstKey(int64_t i) const {
    return window > 0 ? std::max<int64_t>(0, EndKey(i) - window) : 0;
  }
  // Elements from a row of one head to the next, and to a head's first row.
  int64_t q_pitch() const { return heads * size; }
  int64_t kv_pitch() const { return kv_heads * size; }
  int64_t QueryOffset(int64_t image, int64_t head, int64_t query) const {
    return (image * queries + query) * q_pitch() + head * size;
  }
  int64_t KeyOffset(int64_t image, int64_t kv_head, int64_t key) const {
    return (image * keys + key) * kv_pitch() + kv_head * size;
  }

  int64_t batch, heads, kv_heads, queries, keys, size;
  double scale;
  bool causal;
  int64_t window;
};

}  // namespace lepton::kernels
