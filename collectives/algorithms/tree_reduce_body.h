// The loops of TreeReduce, compiled once per instruction set by tree_reduce_<set>.cc, which sets
// LEPTON_TREE_REDUCE_SET. Not a header for anybody else. Includes no header with inline code: the
// linker would be free to keep the copy compiled for the newest CPU.
#include <stddef.h>
#include <stdint.h>

#include "collectives/algorithms/element.h"
#include "collectives/data_type.h"

namespace lepton::collectives::LEPTON_TREE_REDUCE_SET {
namespace {

constexpr size_t kBlock = 1024;  // elements; a block of float32 from each of 8 ranks fits in L1

// Integer sums wrap: through unsigned, where that is defined.
inline float Add(float a, float b) {
  return a + b;
}
inline int32_t Add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline int64_t Add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
inline uint8_t Add(uint8_t a, uint8_t b) {
  return static_cast<uint8_t>(a + b);
}

struct Sum {
  template <typename A>
  static A Combine(A a, A b) {
    return Add(a, b);
  }
  template <typename A>
  static A Finish(A a, A) {
    return a;
  }
};
struct Mean : Sum {
  template <typename A>
  static A Finish(A a, A ranks) {
    return a / ranks;
  }
};
template <typename T>
struct RoundedSum : Sum {
  template <typename A>
  static A Combine(A a, A b) {
    T rounded;
    Store(&rounded, Add(a, b));
    return static_cast<A>(Load(rounded));
  }
};
struct Max : Sum {
  template <typename A>
  static A Combine(A a, A b) {
    return (a > b || a != a) ? a : b;
  }
};
struct Min : Sum {
  template <typename A>
  static A Combine(A a, A b) {
    return (a < b || a != a) ? a : b;
  }
};

// `ranks` >= 1 inputs from element `at` on, `count` <= kBlock elements, into `out`.
template <typename Op, typename T, typename A>
void Subtree(const T* const* in, int ranks, const int* splits, size_t at, size_t count,
             A* __restrict out) {
  const T* a = in[0] + at;
  if (ranks == 1) {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<A>(Load(a[i]));
    return;
  }
  const T* b = in[1] + at;
  if (ranks == 2) {
    for (size_t i = 0; i < count; ++i) {
      out[i] = Op::Combine(static_cast<A>(Load(a[i])), static_cast<A>(Load(b[i])));
    }
    return;
  }
  if (ranks == 4 && splits[0] == 2) {
    const T* c = in[2] + at;
    const T* d = in[3] + at;
    for (size_t i = 0; i < count; ++i) {
      A left = Op::Combine(static_cast<A>(Load(a[i])), static_cast<A>(Load(b[i])));
      A right = Op::Combine(static_cast<A>(Load(c[i])), static_cast<A>(Load(d[i])));
      out[i] = Op::Combine(left, right);
    }
    return;
  }
  const int left = splits[0];
  A right[kBlock];
  Subtree<Op, T, A>(in, left, splits + 1, at, count, out);
  Subtree<Op, T, A>(in + left, ranks - left, splits + left, at, count, right);
  for (size_t i = 0; i < count; ++i) out[i] = Op::Combine(out[i], right[i]);
}

template <typename Op, typename T, typename A>
void Reduce(void* out, const void* const* inputs, int ranks, const int* splits, size_t count) {
  const T* const* in = reinterpret_cast<const T* const*>(inputs);
  T* to = static_cast<T*>(out);
  A block[kBlock];
  for (size_t at = 0; at < count; at += kBlock) {
    size_t n = count - at < kBlock ? count - at : kBlock;
    Subtree<Op, T, A>(in, ranks, splits, at, n, block);
    for (size_t i = 0; i < n; ++i) Store(to + at + i, Op::Finish(block[i], static_cast<A>(ranks)));
  }
}

template <typename T, typename A, typename MeanA>
void ReduceType(void* out, const void* const* inputs, int ranks, const int* splits, size_t count,
                ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return Reduce<Sum, T, A>(out, inputs, ranks, splits, count);
    case ReduceOp::kMean:
      return Reduce<Mean, T, MeanA>(out, inputs, ranks, splits, count);
    case ReduceOp::kMax:
      return Reduce<Max, T, A>(out, inputs, ranks, splits, count);
    case ReduceOp::kMin:
      return Reduce<Min, T, A>(out, inputs, ranks, splits, count);
    case ReduceOp::kRoundedSum:
      return Reduce<RoundedSum<T>, T, A>(out, inputs, ranks, splits, count);
  }
}

}  // namespace

void TreeReduce(void* out, const void* const* inputs, int ranks, const int* splits, size_t count,
                DataType type, ReduceOp op) {
  switch (type) {
    case DataType::kFloat32:
      return ReduceType<float, float, float>(out, inputs, ranks, splits, count, op);
    case DataType::kBFloat16:
      return ReduceType<BFloat16, float, float>(out, inputs, ranks, splits, count, op);
    case DataType::kFloat16:
      return ReduceType<Float16, float, float>(out, inputs, ranks, splits, count, op);
    case DataType::kInt32:
      return ReduceType<int32_t, int32_t, int64_t>(out, inputs, ranks, splits, count, op);
    case DataType::kInt64:
      return ReduceType<int64_t, int64_t, int64_t>(out, inputs, ranks, splits, count, op);
    case DataType::kUInt8:
      return ReduceType<uint8_t, uint8_t, int64_t>(out, inputs, ranks, splits, count, op);
  }
}

}  // namespace lepton::collectives::LEPTON_TREE_REDUCE_SET
