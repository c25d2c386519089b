#include "runtime/ops/cached_attention.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class CachedAttention final : public OpWithoutGradient {
 public:
  CachedAttention() : OpWithoutGradient("cached_attention") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 6));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    const DType dtype = inputs[0].dtype;
    for (size_t i = 0; i < 3; ++i) LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, i, dtype, 3));
    LEPTON_RETURN_IF_ERROR(
        attributes.CheckNames({"heads", "kv_heads", "capacity", "scale", "window"}));
    const Shape& q = inputs[0].shape;
    const int64_t heads = attributes.Int("heads", 1);
    const int64_t kv_heads = attributes.Int("kv_heads", heads);
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || q[2] < 1 || q[2] % heads != 0) {
      return InvalidArgument("the last axis of q " + q.ToString() +
                             " must be a multiple of heads, " + std::to_string(heads) +
                             ", and these of kv_heads, " + std::to_string(kv_heads));
    }
    const int64_t size = q[2] / heads;
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {dtype, Shape({q[0], q[1], kv_heads * size})}));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, inputs[1]));
    for (const size_t i : {3, 4}) {
      LEPTON_RETURN_IF_ERROR(ExpectType(inputs, i, {DType::kI32, Shape({q[0]})}));
    }
    const int64_t capacity = attributes.Int("capacity");
    if (capacity < 1 || capacity % 32 != 0 || attributes.Int("window") < 0) {
      return InvalidArgument(
          "capacity must be a positive multiple of 32, and window not be negative");
    }
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 5, dtype, 2));
    const int64_t least = CacheElements(kv_heads, size, capacity);
    if (inputs[5].shape[1] < least) {
      return InvalidArgument("a slot of the cache has " + std::to_string(inputs[5].shape[1]) +
                             " elements; must have " + std::to_string(least));
    }
    return Types{inputs[0]};
  }
};

}  // namespace

int64_t CacheElements(int64_t kv_heads, int64_t size, int64_t capacity) {
  return kv_heads * capacity * 2 * ((size + 31) / 32 * 32);
}

const graph::Op& CachedAttentionOp() {
  static const CachedAttention op;
  return op;
}

}  // namespace lepton::ops
