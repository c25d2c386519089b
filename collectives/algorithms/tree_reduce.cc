#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {

// `splits` as of TreeSplits, for `ranks` inputs.
using TreeReduceFunction = void (*)(void*, const void* const*, int, const int*, size_t, DataType,
                                    ReduceOp);

namespace baseline {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
#ifdef LEPTON_TREE_REDUCE_X86
namespace avx2 {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
namespace avx512 {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
#endif

namespace {

TreeReduceFunction Fastest() {
#ifdef LEPTON_TREE_REDUCE_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return avx512::TreeReduce;
  }
#if defined(__clang__) && __clang_major__ < 15
  const bool f16c = true;  // of every CPU with AVX2; it cannot be asked for here
#else
  const bool f16c = __builtin_cpu_supports("f16c");
#endif
  if (__builtin_cpu_supports("avx2") && f16c) return avx2::TreeReduce;
#endif
  return baseline::TreeReduce;
}

}  // namespace

void TreeReduce(void* out, const void* const* inputs, const std::vector<int>& splits, size_t count,
                DataType type, ReduceOp op) {
  static const TreeReduceFunction reduce = Fastest();
  const int ranks = static_cast<int>(splits.size()) + 1;
  if (count > 0) reduce(out, inputs, ranks, splits.data(), count, type, op);
}

}  // namespace lepton::collectives
