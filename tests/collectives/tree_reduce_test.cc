// The loops that add up a rank's inputs: the documented order, for every instruction set.
#include "collectives/algorithms/tree_reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "collectives/algorithms/algorithm.h"
#include "tests/collectives/reference.h"

namespace lepton::collectives {

// The loops as compiled for each instruction set.
namespace baseline {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
#ifdef __x86_64__
namespace avx2 {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
namespace avx512 {
void TreeReduce(void*, const void* const*, int, const int*, size_t, DataType, ReduceOp);
}
#endif

namespace {

constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16,
                               DataType::kInt32,   DataType::kInt64,    DataType::kUInt8};
constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin, ReduceOp::kMean,
                             ReduceOp::kRoundedSum};

using TreeReduceFunction = void (*)(void*, const void* const*, int, const int*, size_t, DataType,
                                    ReduceOp);

// As the library calls the loops of one set.
void Dispatched(void* out, const void* const* inputs, int ranks, const int*, size_t count,
                DataType type, ReduceOp op) {
  TreeReduce(out, inputs, TreeSplits(ranks, ranks), count, type, op);
}

void CheckAgainstReference(TreeReduceFunction reduce) {
  constexpr size_t kCount = 3001;
  for (int ranks : {1, 2, 3, 4, 5, 8, 9}) {
    for (DataType type : kTypes) {
      for (ReduceOp op : kOps) {
        std::vector<std::vector<unsigned char>> inputs;
        std::vector<const void*> pointers;
        for (int r = 0; r < ranks; ++r) inputs.push_back(MakeInput(r, 5, kCount, type));
        for (auto& input : inputs) pointers.push_back(input.data());
        // Onto the last input, as the sliced all-reduce does with its own slot.
        reduce(inputs.back().data(), pointers.data(), ranks, TreeSplits(ranks, ranks).data(),
               kCount, type, op);
        EXPECT_EQ(inputs.back(), ExpectedReduction(ranks, 5, 0, kCount, type, op))
            << ranks << " ranks, " << DataTypeName(type) << ", op " << static_cast<int>(op);
      }
    }
  }
}

TEST(TreeReduceTest, EveryInstructionSetGivesTheReferenceBits) {
  CheckAgainstReference(Dispatched);
  CheckAgainstReference(baseline::TreeReduce);
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) {
    CheckAgainstReference(avx2::TreeReduce);
  } else {
    std::printf("no AVX2 here: its loops were not checked\n");
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    CheckAgainstReference(avx512::TreeReduce);
  } else {
    std::printf("no AVX-512 here: its loops were not checked\n");
  }
#endif
}

TEST(TreeReduceTest, OrderOfAdditionIsTheDocumentedOne) {
  // 1 is lost when added to 2^25, but not when it is cancelled first.
  const float big = 33554432.0f;
  const float inputs[] = {big, 1.0f, -big, 1.0f, 3.0f};
  const void* pointers[] = {&inputs[0], &inputs[1], &inputs[2], &inputs[3], &inputs[4]};
  float out = 0;
  TreeReduce(&out, pointers, TreeSplits(4, 4), 1, DataType::kFloat32, ReduceOp::kSum);
  EXPECT_EQ(out, (big + 1.0f) + (-big + 1.0f));
  TreeReduce(&out, pointers, TreeSplits(5, 5), 1, DataType::kFloat32, ReduceOp::kSum);
  EXPECT_EQ(out, ((big + 1.0f) + (-big + 1.0f)) + 3.0f);
  TreeReduce(&out, pointers, TreeSplits(3, 3), 1, DataType::kFloat32, ReduceOp::kSum);
  EXPECT_EQ(out, (big + 1.0f) + -big);
}

TEST(TreeReduceTest, NaNIsContagiousInEveryOperation) {
  for (ReduceOp op : kOps) {
    for (int where = 0; where < 3; ++where) {
      float inputs[] = {1.0f, 2.0f, 3.0f};
      inputs[where] = std::numeric_limits<float>::quiet_NaN();
      const void* pointers[] = {&inputs[0], &inputs[1], &inputs[2]};
      float out = 0;
      TreeReduce(&out, pointers, TreeSplits(3, 3), 1, DataType::kFloat32, op);
      EXPECT_TRUE(std::isnan(out)) << "op " << static_cast<int>(op) << " input " << where;
    }
  }
}

TEST(PartOfTest, PartsCoverEverythingOnceAndBeginOnCacheLines) {
  for (size_t count : {size_t{0}, size_t{1}, size_t{17}, size_t{1021}, size_t{100000}}) {
    for (int parts = 1; parts <= 9; ++parts) {
      size_t end = 0;
      for (int part = 0; part < parts; ++part) {
        Range range = PartOf(count, 4, part, parts);
        EXPECT_EQ(range.begin, end);
        EXPECT_TRUE(range.begin % 16 == 0 || range.begin == count);
        end = range.end;
      }
      EXPECT_EQ(end, count);
    }
  }
}

}  // namespace
}  // namespace lepton::collectives
