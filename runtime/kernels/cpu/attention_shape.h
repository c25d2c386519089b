// The extents of an attention node and what each query may see. Threads: plain values.
#pragma once

#include <algorithm>
#include <cmath>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

struct AttentionShape {
  AttentionShape(const Shape& q, const Shape& k, const graph::Attributes& attributes)
      : batch(q[0]),
        heads(q[1]),
        kv_heads(k[1]),
        queries(q[2]),
        keys(k[2]),
        size(q[3]),
        scale(attributes.Float("scale", 1 / std::sqrt(static_cast<double>(size)))),
        causal(attributes.Int("causal") != 0),
        window(attributes.Int("window")) {}

  int64_t group() const { return heads / kv_heads; }
  // The keys that query i sees: [FirstKey, EndKey), never empty.
  int64_t EndKey(int64_t i) const { return causal ? i + keys - queries + 1 : keys; }
  int64_t FirstKey(int64_t i) const {
    return window > 0 ? std::max<int64_t>(0, EndKey(i) - window) : 0;
  }

  int64_t batch, heads, kv_heads, queries, keys, size;
  double scale;
  bool causal;
  int64_t window;
};

}  // namespace lepton::kernels
