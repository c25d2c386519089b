// The one reduction of this library: all ranks' contributions, added in a fixed binary tree.
//
// The tree over ranks [low, high): a single rank is its own value; otherwise split at low + p,
// where p is the largest power of two below high - low, and combine left with right. So
//   2: 0+1   3: (0+1)+2   4: (0+1)+(2+3)   5: ((0+1)+(2+3))+4   6: ((0+1)+(2+3))+(4+5)
// Types: bfloat16 and float16 are widened to float32 at the leaves and rounded once (to nearest,
//   even) at the root. Integers wrap; their mean divides the 64-bit sum, towards zero. max and min
//   of a NaN are NaN. mean is the sum divided by the number of ranks.
// Identical inputs give identical bits on every CPU: no fused multiply-add, no reassociation.
#pragma once

#include <cstddef>

#include "collectives/communicator.h"

namespace lepton::collectives {

// The largest power of two below n (n >= 2): where the tree splits.
int TreeSplit(int n);

// out[i] = tree over r of inputs[r][i], i < count. `out` may be one of the inputs. Elements may be
// at any address that is a multiple of their size.
void TreeReduce(void* out, const void* const* inputs, int ranks, size_t count, DataType type,
                ReduceOp op);

// The same in steps, for algorithms that pass partial results on: widen each rank's contribution,
// combine partials with TreeReduce of PartialType and PartialOp (kMean becomes kSum) in the tree's
// order, and finish the root.
DataType PartialType(DataType type, ReduceOp op);
ReduceOp PartialOp(ReduceOp op);
void ToPartial(const void* in, size_t count, DataType type, ReduceOp op, void* partial);
void FromPartial(const void* partial, int ranks, size_t count, DataType type, ReduceOp op,
                 void* out);

}  // namespace lepton::collectives
