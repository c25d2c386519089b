// The one reduction of this library: all ranks' contributions, added in a fixed binary tree.
//
// The tree over ranks is that of tree_shape.h. With a leaf a rank, a node splits behind the largest
// power of two below its number of ranks:
//   2: 0+1   3: (0+1)+2   4: (0+1)+(2+3)   5: ((0+1)+(2+3))+4   6: ((0+1)+(2+3))+(4+5)
// Types: bfloat16 and float16 are widened to float32 at the leaves and rounded once (to nearest,
//   even) at the root, or at every node for kRoundedSum. Integers wrap; their mean divides the
//   64-bit sum, towards zero. max and min of a NaN are NaN. mean is the sum divided by the number
//   of ranks.
// Identical inputs give identical bits on every CPU: no fused multiply-add, no reassociation.
#pragma once

#include <cstddef>

#include <vector>

#include "collectives/communicator.h"
#include "collectives/tree_shape.h"

namespace lepton::collectives {

// out[i] = tree over r of inputs[r][i], i < count, for splits.size() + 1 ranks (TreeSplits). `out`
// may be one of the inputs. Elements may be at any address that is a multiple of their size.
void TreeReduce(void* out, const void* const* inputs, const std::vector<int>& splits, size_t count,
                DataType type, ReduceOp op);

// The same in steps, for algorithms that pass partial results on: widen each rank's contribution,
// combine partials with TreeReduce of PartialType and PartialOp (kMean becomes kSum) in the tree's
// order, and finish the root.
DataType PartialType(DataType type, ReduceOp op);
ReduceOp PartialOp(ReduceOp op);
void ToPartial(const void* in, size_t count, DataType type, ReduceOp op, void* partial);
void FromPartial(const void* partial, int ranks, size_t count, DataType type, ReduceOp op,
                 void* out);

}  // namespace lepton::collectives
