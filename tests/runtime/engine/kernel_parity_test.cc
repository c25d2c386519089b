// Every kernel of the list against the reference of its op, over sizes and element types; and the
// vector kernels against each other, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/absent_kernels.h"
#include "tests/runtime/engine/kernel_cases.h"

namespace lepton::graph {
// How a failing test names its kernel.
void PrintTo(const KernelEntry& entry, std::ostream* out) {
  *out << entry.op << " " << DTypeName(entry.dtype) << " " << entry.implementation;
}
}  // namespace lepton::graph

namespace lepton::engine_test {
namespace {

using graph::KernelEntry;

struct Size {
  int64_t rows, n;
};
// One element, odd and small, not a multiple of any vector, several tiles and threads.
constexpr Size kSizes[] = {{1, 1}, {3, 7}, {33, 67}, {300, 270}, {9, 5000}};

double Tolerance(const KernelEntry& entry, const OpCase& op_case) {
  for (const char* exact :
       {"cast", "dropout", "transpose", "slice", "gather", "matmul_int8", "conv2d_int8"}) {
    if (entry.op == exact) return 0;
  }
  // Sums of k terms in f32, against the reference's double.
  if (entry.op == "matmul" || entry.op == "batch_matmul") {
    return 1e-6 * static_cast<double>(op_case.inputs[0].type.shape.elements() /
                                          std::max<int64_t>(1, op_case.inputs[0].type.shape[0]) +
                                      32);
  }
  // Probabilities and slopes are rounded before they are multiplied.
  if (entry.op.find("attention") != entry.op.npos && entry.dtype == DType::kBF16) return 3e-2;
  if (entry.op == "linear_cross_entropy_grad" && entry.dtype == DType::kBF16) return 3e-2;
  if (entry.op.find("attention") != entry.op.npos) return 1e-4;
  // Transformed tiles are rounded too: MinimalFilteringOfBf16LosesLittle has the errors as a whole.
  if (entry.implementation == "winograd" && entry.dtype == DType::kBF16) {
    const Shape& first = op_case.inputs[0].type.shape;
    const bool weights = entry.op == "conv2d_weight_grad";
    const int64_t terms = weights ? first[0] * first[2] * first[3] : first[1] * 9;
    return 4e-2 * std::sqrt(static_cast<double>(terms));
  }
  // Sums of up to 12,800 products.
  if (entry.op == "conv2d_weight_grad") return 5e-4;
  if (entry.op.starts_with("conv2d")) return 2e-4;
  return 2e-5;
}

// All but the references themselves.
std::vector<KernelEntry> FastKernels() {
  std::vector<KernelEntry> entries;
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.implementation != "reference") entries.push_back(entry);
  }
  return entries;
}

class KernelParity : public testing::TestWithParam<KernelEntry> {};

TEST_P(KernelParity, EqualsTheReference) {
  const KernelEntry& entry = GetParam();
  const KernelEntry reference = EntriesOf(entry.op, entry.dtype).back();
  ASSERT_EQ(reference.implementation, "reference");
  int ran = 0;
  for (const Size& size : kSizes) {
    std::vector<OpCase> cases = CasesFor(entry.op, entry.dtype, size.rows, size.n);
    ASSERT_FALSE(cases.empty()) << "op " << entry.op << " has no case in op_cases.cc";
    for (OpCase& op_case : cases) {
      if (!CanRun(entry, op_case)) continue;
      auto got = RunKernel(entry, op_case, kParityState);
      auto wanted = RunKernel(reference, op_case, kParityState);
      for (size_t i = 0; i < got.size(); ++i) {
        ExpectNear(got[i], wanted[i], Tolerance(entry, op_case),
                   op_case.label + " rows " + std::to_string(size.rows) + " n " +
                       std::to_string(size.n) + " output " + std::to_string(i));
      }
      ++ran;
    }
  }
  const std::string reason = ReasonToSkip(entry);
  if (ran == 0 && !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_GT(ran, 0) << "no case in op_cases.cc for this kernel";
}

INSTANTIATE_TEST_SUITE_P(EveryKernel, KernelParity, testing::ValuesIn(FastKernels()),
                         [](const auto& info) {
                           std::string name = std::string(info.param.op) + "_" +
                                              std::string(DTypeName(info.param.dtype)) + "_" +
                                              std::string(info.param.implementation);
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

TEST(KernelList, EveryOpEndsInAReferenceThatRunsEverything) {
  for (const graph::Op* op : ops::OpList().ops()) {
    int types = 0;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      const auto cases = CasesFor(op->name(), dtype, 3, 5);
      if (cases.empty() || (dtype == DType::kI32 && types > 0)) continue;
      ++types;
      const auto entries = EntriesOf(op->name(), dtype);
      ASSERT_FALSE(entries.empty()) << op->name();
      EXPECT_EQ(entries.back().implementation, "reference") << op->name();
      for (const OpCase& op_case : cases) EXPECT_TRUE(CanRun(entries.back(), op_case));
    }
    EXPECT_GT(types, 0) << op->name() << " has no case in op_cases.cc";
  }
}

// What makes a heterogeneous pool of CPUs agree on everything but the matrix products.
TEST(VectorKernels, EveryInstructionSetGivesTheSameBits) {
  int compared = 0;
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.implementation != "avx512" && entry.implementation != "avx2") continue;
    const auto entries = EntriesOf(entry.op, entry.dtype);
    const KernelEntry& baseline = entries[entries.size() - 2];
    ASSERT_EQ(baseline.implementation, "baseline");
    for (const Size& size : kSizes) {
      for (OpCase& op_case : CasesFor(entry.op, entry.dtype, size.rows, size.n)) {
        if (!CanRun(entry, op_case)) continue;
        auto got = RunKernel(entry, op_case, kParityState);
        auto wanted = RunKernel(baseline, op_case, kParityState);
        for (size_t i = 0; i < got.size(); ++i) {
          ExpectNear(got[i], wanted[i], 0,
                     std::string(entry.op) + " " + std::string(entry.implementation) + " " +
                         op_case.label + " n " + std::to_string(size.n));
        }
        ++compared;
      }
    }
  }
  if (compared == 0) GTEST_SKIP() << "this CPU has neither AVX-512 nor AVX2";
}

TEST(Kernels, NanGoesThrough) {
  for (const char* op : {"relu", "gelu", "tanh", "sigmoid", "softmax", "log_softmax"}) {
    for (const KernelEntry& entry : EntriesOf(op, DType::kF32)) {
      OpCase op_case = std::move(CasesFor(op, DType::kF32, 2, 20).front());
      if (!CanRun(entry, op_case)) continue;
      op_case.inputs[0].floats()[21] = std::nanf("");
      auto outputs = RunKernel(entry, op_case, kParityState);
      EXPECT_TRUE(std::isnan(outputs[0].floats()[21])) << op << " " << entry.implementation;
      EXPECT_FALSE(std::isnan(outputs[0].floats()[0])) << op << " " << entry.implementation;
    }
  }
}

TEST(Dropout, KeepsTheExpectedShareAndItsSum) {
  OpCase op_case;
  op_case.attributes = {{"rate", 0.25}, {"stream", int64_t{1}}};
  op_case.inputs.push_back(RandomTensor({DType::kF32, {400, 500}}, 1, 1, 1));
  auto entry = EntriesOf("dropout", DType::kF32).front();
  auto output = std::move(RunKernel(entry, op_case, {1, 0, 0}).front());
  double kept = 0;
  for (const float y : output.floats()) {
    ASSERT_TRUE(y == 0.0f || std::abs(y - 4.0f / 3) < 1e-6);
    kept += y != 0;
  }
  EXPECT_NEAR(kept / 200000, 0.75, 0.005);
}

TEST(Dropout, MaskFollowsSeedStepShardAndStream) {
  auto entry = EntriesOf("dropout", DType::kF32).front();
  const auto mask = [&](graph::RunState state, int64_t stream) {
    OpCase op_case;
    op_case.attributes = {{"rate", 0.5}, {"stream", stream}};
    op_case.inputs.push_back(RandomTensor({DType::kF32, {1, 64}}, 1, 1, 1));
    std::string bits;
    auto outputs = RunKernel(entry, op_case, state);
    for (const float y : outputs.front().floats()) {
      bits += y == 0 ? '0' : '1';
    }
    return bits;
  };
  const std::string first = mask({1, 2, 3}, 4);
  EXPECT_EQ(first, mask({1, 2, 3}, 4));
  EXPECT_NE(first, mask({9, 2, 3}, 4));
  EXPECT_NE(first, mask({1, 9, 3}, 4));
  EXPECT_NE(first, mask({1, 2, 9}, 4));
  EXPECT_NE(first, mask({1, 2, 3}, 9));
}

}  // namespace
}  // namespace lepton::engine_test
