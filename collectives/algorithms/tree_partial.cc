#include <cstdint>
#include <cstring>

#include "collectives/algorithms/element.h"
#include "collectives/algorithms/tree_reduce.h"

namespace lepton::collectives {
namespace {

template <typename T, typename P>
void Widen(const void* in, size_t count, void* partial) {
  const T* from = static_cast<const T*>(in);
  P* to = static_cast<P*>(partial);
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<P>(Load(from[i]));
}

template <typename T, typename P>
void Finish(const void* partial, int ranks, size_t count, void* out) {
  const P* from = static_cast<const P*>(partial);
  T* to = static_cast<T*>(out);
  for (size_t i = 0; i < count; ++i) Store(to + i, static_cast<P>(from[i] / static_cast<P>(ranks)));
}

void Copy(const void* from, size_t count, DataType type, void* to) {
  if (count > 0) std::memcpy(to, from, count * DataTypeSize(type));
}

bool IsInteger(DataType type) {
  return type == DataType::kInt32 || type == DataType::kInt64 || type == DataType::kUInt8;
}

}  // namespace

DataType PartialType(DataType type, ReduceOp op) {
  if (op == ReduceOp::kRoundedSum) return type;
  if (IsInteger(type)) return op == ReduceOp::kMean ? DataType::kInt64 : type;
  return DataType::kFloat32;
}

ReduceOp PartialOp(ReduceOp op) {
  return op == ReduceOp::kMean ? ReduceOp::kSum : op;
}

void ToPartial(const void* in, size_t count, DataType type, ReduceOp op, void* partial) {
  if (op == ReduceOp::kRoundedSum) return Copy(in, count, type, partial);
  switch (type) {
    case DataType::kFloat32:
      return Widen<float, float>(in, count, partial);
    case DataType::kBFloat16:
      return Widen<BFloat16, float>(in, count, partial);
    case DataType::kFloat16:
      return Widen<Float16, float>(in, count, partial);
    case DataType::kInt64:
      return Widen<int64_t, int64_t>(in, count, partial);
    case DataType::kInt32:
      return op == ReduceOp::kMean ? Widen<int32_t, int64_t>(in, count, partial)
                                   : Widen<int32_t, int32_t>(in, count, partial);
    case DataType::kUInt8:
      return op == ReduceOp::kMean ? Widen<uint8_t, int64_t>(in, count, partial)
                                   : Widen<uint8_t, uint8_t>(in, count, partial);
  }
}

void FromPartial(const void* partial, int ranks, size_t count, DataType type, ReduceOp op,
                 void* out) {
  if (op == ReduceOp::kRoundedSum) return Copy(partial, count, type, out);
  int divisor = op == ReduceOp::kMean ? ranks : 1;
  switch (type) {
    case DataType::kFloat32:
      return Finish<float, float>(partial, divisor, count, out);
    case DataType::kBFloat16:
      return Finish<BFloat16, float>(partial, divisor, count, out);
    case DataType::kFloat16:
      return Finish<Float16, float>(partial, divisor, count, out);
    case DataType::kInt64:
      return Finish<int64_t, int64_t>(partial, divisor, count, out);
    case DataType::kInt32:
      return op == ReduceOp::kMean ? Finish<int32_t, int64_t>(partial, divisor, count, out)
                                   : Finish<int32_t, int32_t>(partial, divisor, count, out);
    case DataType::kUInt8:
      return op == ReduceOp::kMean ? Finish<uint8_t, int64_t>(partial, divisor, count, out)
                                   : Finish<uint8_t, uint8_t>(partial, divisor, count, out);
  }
}

}  // namespace lepton::collectives
