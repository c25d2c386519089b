// What a reduction must give, bit for bit, computed one element at a time and independently of the
// library: its own tree, its own roundings.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"

namespace lepton::collectives {

// `count` elements of rank `rank`'s contribution to case `seed`: a mix of magnitudes whose sum
// depends on the order of addition.
std::vector<unsigned char> MakeInput(int rank, uint64_t seed, size_t count, DataType type);

// Elements [begin, begin + count) of the reduction over `ranks` such inputs.
std::vector<unsigned char> ExpectedReduction(int ranks, uint64_t seed, size_t begin, size_t count,
                                             DataType type, ReduceOp op);

}  // namespace lepton::collectives
