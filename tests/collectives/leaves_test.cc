// The promise of the tree over leaves, as a property: whatever number of ranks holds them, a sum
// has the bits of one rank that holds them all, of every type and operation for which that is
// promised.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "collectives/algorithms/tree_reduce.h"
#include "collectives/backends/native_backend.h"
#include "tests/collectives/gang.h"
#include "tests/collectives/reference.h"

namespace lepton::collectives {
namespace {

constexpr int kMostLeaves = 16;
constexpr int kMostRanks = 8;
constexpr size_t kSizes[] = {1, 1021, 70001};
// Where everything takes ten times as long, no long ones.
#if defined(LEPTON_TSAN) || defined(__SANITIZE_ADDRESS__)
constexpr size_t kLongest = kSizes[1];
#else
constexpr size_t kLongest = kSizes[2];
#endif
constexpr size_t kMostElements = 70001 + kMostRanks;
constexpr uint64_t kLeafSeed = 12;

struct Kind {
  DataType type;
  ReduceOp op;
};

// Not means, which divide by the ranks, nor plain sums of 16-bit floats, whose rank rounds what it
// holds (communicator.h).
constexpr Kind kPromised[] = {
    {DataType::kFloat32, ReduceOp::kSum},         {DataType::kFloat32, ReduceOp::kMax},
    {DataType::kFloat32, ReduceOp::kMin},         {DataType::kFloat32, ReduceOp::kRoundedSum},
    {DataType::kBFloat16, ReduceOp::kMax},        {DataType::kBFloat16, ReduceOp::kMin},
    {DataType::kBFloat16, ReduceOp::kRoundedSum}, {DataType::kFloat16, ReduceOp::kMax},
    {DataType::kFloat16, ReduceOp::kMin},         {DataType::kFloat16, ReduceOp::kRoundedSum},
    {DataType::kInt32, ReduceOp::kSum},           {DataType::kInt32, ReduceOp::kMax},
    {DataType::kInt32, ReduceOp::kMin},           {DataType::kInt32, ReduceOp::kRoundedSum},
    {DataType::kInt64, ReduceOp::kSum},           {DataType::kInt64, ReduceOp::kMax},
    {DataType::kInt64, ReduceOp::kMin},           {DataType::kInt64, ReduceOp::kRoundedSum},
    {DataType::kUInt8, ReduceOp::kSum},           {DataType::kUInt8, ReduceOp::kMax},
    {DataType::kUInt8, ReduceOp::kMin},           {DataType::kUInt8, ReduceOp::kRoundedSum},
};

using LeafBytes = std::vector<unsigned char>;

std::string NameOf(const Kind& kind) {
  return std::string(DataTypeName(kind.type)) + " op " + std::to_string(static_cast<int>(kind.op));
}

// By type, what every leaf contributes.
using Leaves = std::map<DataType, std::vector<LeafBytes>>;

Leaves MakeLeaves() {
  Leaves leaves;
  for (const Kind& kind : kPromised) {
    std::vector<LeafBytes>& of_type = leaves[kind.type];
    while (of_type.size() < kMostLeaves) {
      of_type.push_back(
          MakeInput(static_cast<int>(of_type.size()), kLeafSeed, kMostElements, kind.type));
    }
  }
  return leaves;
}

bool Adds(const Kind& kind) {
  return kind.op == ReduceOp::kSum || kind.op == ReduceOp::kRoundedSum;
}

// What a rank without a leaf adds: -0.0, or an integer's 0.
void FillWithNothing(const Kind& kind, LeafBytes& out) {
  const size_t element = DataTypeSize(kind.type);
  const bool floats = kind.type == DataType::kFloat32 || kind.type == DataType::kBFloat16 ||
                      kind.type == DataType::kFloat16;
  std::fill(out.begin(), out.end(), 0);
  for (size_t at = element - 1; floats && at < out.size(); at += element) out[at] = 0x80;
}

// What a rank that holds these leaves contributes of the first `count` elements.
void Fold(const std::vector<LeafBytes>& leaves, LeafRange held, size_t count, const Kind& kind,
          LeafBytes& out) {
  std::vector<const void*> inputs;
  for (int leaf = held.begin; leaf < held.end; ++leaf) {
    inputs.push_back(leaves[static_cast<size_t>(leaf)].data());
  }
  const int n = held.end - held.begin;
  out.resize(count * DataTypeSize(kind.type));
  if (n == 0) return FillWithNothing(kind, out);
  TreeReduce(out.data(), inputs.data(), TreeSplits(n, n), count, kind.type, kind.op);
}

class LeavesTest : public testing::TestWithParam<int> {};

// Of one number of leaves, held by one rank and by ever more of them. Where some ranks hold none,
// what adds up.
std::string SumsOfLeaves(Communicator& comm, int leaves, const Leaves& all, size_t most,
                         const std::vector<LeafBytes>& expected) {
  const auto ranks = static_cast<size_t>(comm.size());
  const LeafRange held = LeavesOf(comm.rank(), comm.size(), leaves);
  LeafBytes mine, sum;
  for (size_t k = 0; k < std::size(kPromised); ++k) {
    const Kind& kind = kPromised[k];
    if (comm.size() > leaves && !Adds(kind)) continue;
    const size_t element = DataTypeSize(kind.type);
    for (const size_t count : kSizes) {
      if (count > most) continue;
      const size_t part = std::max<size_t>(1, count / ranks);  // of a scattered sum
      Fold(all.at(kind.type), held, std::max(count, part * ranks), kind, mine);
      sum.assign(count * element, 0xee);
      Status status = comm.AllReduce(mine.data(), sum.data(), count, kind.type, kind.op);
      if (!status.ok()) return status.ToString();
      if (std::memcmp(sum.data(), expected[k].data(), sum.size()) != 0) {
        return "all-reduce: other bits: " + NameOf(kind) + ", " + std::to_string(count);
      }
      sum.assign(part * element, 0xee);
      status = comm.ReduceScatter(mine.data(), sum.data(), part, kind.type, kind.op);
      if (!status.ok()) return status.ToString();
      const size_t at = static_cast<size_t>(comm.rank()) * part * element;
      if (std::memcmp(sum.data(), expected[k].data() + at, sum.size()) != 0) {
        return "reduce-scatter: other bits: " + NameOf(kind) + ", " + std::to_string(count);
      }
    }
  }
  return "";
}

TEST_P(LeavesTest, SumsHaveEqualBitsForEveryNumberOfRanks) {
  static const Leaves all = MakeLeaves();
  const int leaves = GetParam();
  std::vector<LeafBytes> expected(std::size(kPromised));
  for (size_t k = 0; k < expected.size(); ++k) {
    const Kind& kind = kPromised[k];
    Fold(all.at(kind.type), {0, leaves}, kMostElements, kind, expected[k]);
    if (kind.op != ReduceOp::kRoundedSum) continue;
    ASSERT_EQ(expected[k],
              ExpectedReduction(leaves, kLeafSeed, 0, kMostElements, kind.type, kind.op))
        << NameOf(kind) << ": not even one rank's bits are the tree's";
  }
  for (const auto transport : {TransportChoice::kShm, TransportChoice::kTcp}) {
    const NativeBackend backend({transport, ""});
    // Long sums over links take too long to be had for all numbers of leaves.
    const size_t most =
        transport == TransportChoice::kShm || leaves % 5 == 3 ? kLongest : kSizes[1];
    for (int ranks = 1; ranks <= kMostRanks; ++ranks) {
      // Two of the numbers of ranks that are more than the leaves.
      if (ranks > leaves + 1 && ranks != kMostRanks) continue;
      GangOptions options{.backend = &backend, .size = ranks, .ranks_as = RanksAs::kThreads};
      options.leaves = leaves;
      const auto results = RunGang(options, [&](Communicator& comm) {
        return SumsOfLeaves(comm, leaves, all, most, expected);
      });
      for (const auto& result : results) {
        ASSERT_EQ(result, "") << ranks << " ranks, "
                              << (transport == TransportChoice::kShm ? "shm" : "tcp");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Native, LeavesTest, testing::Range(1, kMostLeaves + 1),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace lepton::collectives
