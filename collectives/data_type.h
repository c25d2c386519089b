// Element types and reductions, alone: this header has no code and includes nothing, so that files
// compiled for one instruction set may include it.
#pragma once

namespace lepton::collectives {

enum class DataType { kFloat32, kBFloat16, kFloat16, kInt32, kInt64, kUInt8 };
enum class ReduceOp { kSum, kMax, kMin, kMean };

}  // namespace lepton::collectives
