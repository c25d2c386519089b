// Element types and reductions, alone: this header has no code and includes nothing, so that files
// compiled for one instruction set may include it.
#pragma once

namespace lepton::collectives {

enum class DataType { kFloat32, kBFloat16, kFloat16, kInt32, kInt64, kUInt8 };
// kRoundedSum: kSum whose every partial sum is rounded to the type, not only the last: what a rank
// contributes may then be a partial sum itself, and the bits do not show who added what. Of 16-bit
// floats; of the other types it is kSum.
enum class ReduceOp { kSum, kMax, kMin, kMean, kRoundedSum };

}  // namespace lepton::collectives
