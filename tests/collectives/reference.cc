#include "tests/collectives/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

namespace lepton::collectives {
namespace {

constexpr int kMaxRanks = 64;
// Values repeat after a prime number of elements, so that no misplaced chunk looks right.
constexpr size_t kPeriod = 65537;

uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t Draw(int rank, size_t index) {
  return Mix(static_cast<uint64_t>(rank) * 7919 + Mix(index));
}

// Between 2^-6 and 2^7, of either sign.
float DrawFloat(uint64_t bits) {
  float mantissa = 1.0f + static_cast<float>(bits & 0xffffff) / 16777216.0f;
  float value = std::ldexp(mantissa, static_cast<int>((bits >> 24) % 13) - 6);
  return (bits >> 40) & 1 ? -value : value;
}

// The nearest of the two neighbours on bfloat16's grid, by comparing distances; even on a tie.
uint16_t RoundToBFloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  uint16_t below = static_cast<uint16_t>(bits >> 16);
  uint32_t fraction = bits & 0xffff;
  if (fraction > 0x8000 || (fraction == 0x8000 && (below & 1) == 1)) ++below;
  return below;
}

float FromBFloat16(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float DecodeFloat16(uint16_t half) {
  int exponent = (half >> 10) & 31;
  int fraction = half & 1023;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  if (exponent == 31) value = fraction == 0 ? INFINITY : NAN;
  return half & 0x8000 ? -value : value;
}

float FromFloat16(uint16_t half) {
  static const auto* table = [] {
    auto* values = new std::vector<float>(65536);
    for (int i = 0; i < 65536; ++i) (*values)[i] = DecodeFloat16(static_cast<uint16_t>(i));
    return values;
  }();
  return (*table)[half];
}

// By search: the 16-bit pattern whose value is nearest, even on a tie.
uint16_t RoundToFloat16(float value) {
  uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  double target = std::fabs(static_cast<double>(value));
  if (target >= 65520.0) return sign | 0x7c00;
  uint16_t low = 0;
  uint16_t high = 0x7bff;
  while (low < high) {  // the largest pattern not above the target
    uint16_t middle = static_cast<uint16_t>((low + high + 1) / 2);
    if (FromFloat16(middle) <= target) {
      low = middle;
    } else {
      high = static_cast<uint16_t>(middle - 1);
    }
  }
  double down = target - FromFloat16(low);
  double up = (low == 0x7bff ? 65536.0 : FromFloat16(static_cast<uint16_t>(low + 1))) - target;
  if (up < down || (up == down && (low & 1) == 1)) ++low;
  return sign | low;
}

template <typename T>
T Combine(T a, T b, ReduceOp op) {
  if (op == ReduceOp::kMax) return a > b ? a : b;
  if (op == ReduceOp::kMin) return a < b ? a : b;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  } else {
    return a + b;
  }
}

template <typename T>
T Tree(const T* values, int low, int high, ReduceOp op) {
  if (high - low == 1) return values[low];
  int half = 1;
  while (half * 2 < high - low) half *= 2;
  return Combine(Tree(values, low, low + half, op), Tree(values, low + half, high, op), op);
}

float Round(float value, DataType type) {
  if (type == DataType::kBFloat16) return FromBFloat16(RoundToBFloat16(value));
  if (type == DataType::kFloat16) return FromFloat16(RoundToFloat16(value));
  return value;
}

float RoundedTree(const float* values, int low, int high, DataType type) {
  if (high - low == 1) return values[low];
  int half = 1;
  while (half * 2 < high - low) half *= 2;
  return Round(
      RoundedTree(values, low, low + half, type) + RoundedTree(values, low + half, high, type),
      type);
}

template <typename T>
T Finish(T value, int ranks, ReduceOp op) {
  return op == ReduceOp::kMean ? static_cast<T>(value / static_cast<T>(ranks)) : value;
}

float FloatElement(int rank, size_t index, DataType type) {
  return Round(DrawFloat(Draw(rank, index)), type);
}

int64_t IntElement(int rank, size_t index, DataType type) {
  uint64_t bits = Draw(rank, index);
  if (type == DataType::kInt64) return static_cast<int64_t>(bits) >> 4;
  if (type == DataType::kInt32) return static_cast<int32_t>(bits);
  return static_cast<uint8_t>(bits);
}

bool IsFloat(DataType type) {
  return type == DataType::kFloat32 || type == DataType::kBFloat16 || type == DataType::kFloat16;
}

template <typename T>
void Put(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

void PutFloat(unsigned char* to, float value, DataType type) {
  if (type == DataType::kFloat32) return Put(to, value);
  Put(to, type == DataType::kBFloat16 ? RoundToBFloat16(value) : RoundToFloat16(value));
}

void PutInt(unsigned char* to, int64_t value, DataType type) {
  if (type == DataType::kInt64) return Put(to, value);
  if (type == DataType::kInt32) return Put(to, static_cast<int32_t>(value));
  Put(to, static_cast<uint8_t>(value));
}

using Bytes = std::vector<unsigned char>;

Bytes OnePeriod(int rank, DataType type) {
  size_t size = DataTypeSize(type);
  Bytes out(kPeriod * size);
  for (size_t i = 0; i < kPeriod; ++i) {
    if (IsFloat(type)) {
      PutFloat(&out[i * size], FloatElement(rank, i, type), type);
    } else {
      PutInt(&out[i * size], IntElement(rank, i, type), type);
    }
  }
  return out;
}

Bytes OnePeriodReduced(int ranks, DataType type, ReduceOp op) {
  size_t size = DataTypeSize(type);
  Bytes out(kPeriod * size);
  float floats[kMaxRanks];
  int64_t ints[kMaxRanks];
  for (size_t i = 0; i < kPeriod; ++i) {
    for (int r = 0; r < ranks; ++r) {
      if (IsFloat(type)) {
        floats[r] = FloatElement(r, i, type);
      } else {
        ints[r] = IntElement(r, i, type);
      }
    }
    if (op == ReduceOp::kRoundedSum && IsFloat(type)) {
      PutFloat(&out[i * size], RoundedTree(floats, 0, ranks, type), type);
    } else if (IsFloat(type)) {
      PutFloat(&out[i * size], Finish(Tree(floats, 0, ranks, op), ranks, op), type);
    } else {
      PutInt(&out[i * size], Finish(Tree(ints, 0, ranks, op), ranks, op), type);
    }
  }
  return out;
}

// Computed once a process; ranks may be threads.
const Bytes& Memoized(int ranks, DataType type, int op) {
  static std::mutex mutex;
  static auto* all = new std::map<std::tuple<int, DataType, int>, Bytes>;
  std::lock_guard lock(mutex);
  auto [at, fresh] = all->try_emplace({ranks, type, op});
  if (fresh) {
    at->second =
        op < 0 ? OnePeriod(ranks, type) : OnePeriodReduced(ranks, type, static_cast<ReduceOp>(op));
  }
  return at->second;
}

Bytes Repeat(const Bytes& period, uint64_t seed, size_t begin, size_t count, size_t size) {
  Bytes out(count * size);
  size_t from = (seed * 977 + begin) % kPeriod;
  for (size_t done = 0; done < count;) {
    size_t n = std::min(count - done, kPeriod - from);
    std::memcpy(out.data() + done * size, period.data() + from * size, n * size);
    done += n;
    from = 0;
  }
  return out;
}

}  // namespace

std::vector<unsigned char> MakeInput(int rank, uint64_t seed, size_t count, DataType type) {
  return Repeat(Memoized(rank, type, -1), seed, 0, count, DataTypeSize(type));
}

std::vector<unsigned char> ExpectedReduction(int ranks, uint64_t seed, size_t begin, size_t count,
                                             DataType type, ReduceOp op) {
  return Repeat(Memoized(ranks, type, static_cast<int>(op)), seed, begin, count,
                DataTypeSize(type));
}

}  // namespace lepton::collectives
