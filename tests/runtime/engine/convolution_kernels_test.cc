// The kernels of convolutions against each other: which bits they share, and what minimal filtering
// loses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "tests/runtime/engine/kernel_cases.h"

namespace lepton::engine_test {
namespace {

using graph::KernelEntry;

// Which of them runs depends on the CPU.
TEST(Convolutions, ShiftedAndUnfoldedGiveTheSameBits) {
  int compared = 0;
  for (const char* op : {"conv2d", "conv2d_input_grad"}) {
    const auto entries = EntriesOf(op, DType::kBF16);
    const auto named = [&](std::string_view implementation) {
      return *std::find_if(entries.begin(), entries.end(), [&](const KernelEntry& entry) {
        return entry.implementation == implementation;
      });
    };
    for (OpCase& op_case : CasesFor(op, DType::kBF16, 5, 5)) {
      if (!CanRun(named("shifted"), op_case)) continue;
      auto got = RunKernel(named("shifted"), op_case, kParityState);
      auto wanted = RunKernel(named("gemm"), op_case, kParityState);
      ExpectNear(got[0], wanted[0], 0, std::string(op) + " " + op_case.label);
      ++compared;
    }
  }
  if (compared == 0) GTEST_SKIP() << "this CPU has no AMX";
  EXPECT_GE(compared, 12);
}

// In any batch, and whoever computes how many lines of it.
TEST(Convolutions, AnImageHasTheSameBitsInAnyBatch) {
  for (OpCase& many : CasesFor("conv2d", DType::kBF16, 5, 5)) {
    OpCase one;
    one.attributes = many.attributes;
    const Shape& images = many.inputs[0].type.shape;
    one.inputs.push_back(MakeTensor({DType::kBF16, {1, images[1], images[2], images[3]}}));
    one.inputs.push_back(MakeTensor(many.inputs[1].type));
    for (HostTensor& input : one.inputs) {
      const size_t i = &input - one.inputs.data();
      std::memcpy(input.data.data(), many.inputs[i].data.data(), input.data.size());
    }
    const KernelEntry entry = EntriesOf("conv2d", DType::kBF16).front();
    if (!CanRun(entry, one)) continue;
    auto whole = RunKernel(entry, many, kParityState);
    auto alone = RunKernel(entry, one, kParityState);
    EXPECT_EQ(std::memcmp(whole[0].data.data(), alone[0].data.data(), alone[0].data.size()), 0)
        << many.label;
  }
}

// Against the direct sums' errors (oneDNN's), both measured against sums in double.
TEST(Convolutions, MinimalFilteringLosesLittle) {
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    const auto entries = EntriesOf(op, DType::kF32);
    const auto named = [&](std::string_view implementation) {
      return *std::find_if(entries.begin(), entries.end(), [&](const KernelEntry& entry) {
        return entry.implementation == implementation;
      });
    };
    double filtered = 0, direct = 0;
    int compared = 0;
    for (OpCase& op_case : CasesFor(op, DType::kF32, 5, 5)) {
      if (!CanRun(named("winograd"), op_case) || !CanRun(named("onednn"), op_case)) continue;
      auto wanted = RunKernel(entries.back(), op_case, kParityState);
      const auto error = [&](const KernelEntry& entry) {
        auto got = RunKernel(entry, op_case, kParityState);
        double sum = 0;
        for (int64_t i = 0; i < got[0].type.shape.elements(); ++i) {
          sum += std::abs(static_cast<double>(got[0].floats()[i]) - wanted[0].floats()[i]);
        }
        return sum;
      };
      filtered += error(named("winograd"));
      direct += error(named("onednn"));
      ++compared;
    }
    ASSERT_GE(compared, 3) << op;
    std::printf("%s: errors %.2f times those of direct sums, %d shapes\n", op, filtered / direct,
                compared);
    EXPECT_LT(filtered, 2.5 * direct) << op;
  }
}

// So many channels that not one tile of all of them has a place in what a core keeps at hand.
TEST(Convolutions, MinimalFilteringTakesVeryManyChannels) {
  const std::vector<KernelEntry> entries = EntriesOf("conv2d_weight_grad", DType::kF32);
  const Shape x({1, 16, 4, 4}), y({1, 1 << 15, 4, 4});
  OpCase op_case = MakeCase(
      "", {{"strides", std::vector<int64_t>{1, 1}}, {"pads", std::vector<int64_t>{1, 1, 1, 1}}}, {},
      RandomTensor(F32(y), 1, -1, 1));
  op_case.inputs.push_back(RandomTensor(F32(x), 2, -1, 1));
  op_case.inputs.push_back(RandomTensor(F32({1 << 15, 16, 3, 3}), 3, -1, 1));
  auto wanted = RunKernel(entries.back(), op_case, kParityState);
  for (const KernelEntry& entry : entries) {
    if (entry.implementation != "winograd" || !CanRun(entry, op_case)) continue;
    auto got = RunKernel(entry, op_case, kParityState);
    ExpectNear(got[0], wanted[0], 5e-4, "winograd");
    return;
  }
  GTEST_SKIP() << "this CPU does not filter";
}

// Planes with such a border would not fit any memory.
TEST(Convolutions, AWindowMuchLargerThanTheImageIsNotShifted) {
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    for (const KernelEntry& entry : EntriesOf(op, DType::kBF16)) {
      if (entry.implementation != "shifted") continue;
      int taken = 0;
      for (const int64_t dilation : {1, 1 << 20}) {
        const Shape image({1, 32, 32, 32});
        OpCase op_case =
            MakeCase("",
                     {{"strides", std::vector<int64_t>{1, 1}},
                      {"dilations", std::vector<int64_t>{dilation, dilation}},
                      {"pads", std::vector<int64_t>{dilation, dilation, dilation, dilation}}},
                     {}, RandomTensor({DType::kBF16, image}, 1, -1, 1));
        const TensorType weights{DType::kBF16, Shape({32, 32, 3, 3})};
        if (op == std::string_view("conv2d_weight_grad")) {
          op_case.inputs.push_back(RandomTensor({DType::kBF16, image}, 2, -1, 1));
        }
        op_case.inputs.push_back(RandomTensor(weights, 3, -1, 1));
        if (op == std::string_view("conv2d_input_grad")) {
          op_case.inputs.push_back(RandomTensor({DType::kBF16, image}, 2, -1, 1));
        }
        const bool takes = CanRun(entry, op_case);
        if (dilation > 1) {
          EXPECT_FALSE(takes) << op;
        }
        taken += takes;
      }
      const bool shifts = op == std::string_view("conv2d_weight_grad") ||
                          kernels::gemm::Bf16Micro().multiply_shifted != nullptr;
      EXPECT_EQ(taken, shifts ? 1 : 0) << op;
    }
  }
}

// Rounded to bf16, as inputs, weights and outputs are, tiles and transformed weights are two to
// three times as far from the direct sums as these are from sums of weights that are not rounded.
TEST(Convolutions, MinimalFilteringOfBf16LosesLittle) {
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    int compared = 0;
    const auto entries = EntriesOf(op, DType::kBF16);
    const KernelEntry filtering =
        *std::find_if(entries.begin(), entries.end(),
                      [](const KernelEntry& entry) { return entry.implementation == "winograd"; });
    for (OpCase& op_case : CasesFor(op, DType::kBF16, 5, 5)) {
      if (!CanRun(filtering, op_case)) continue;
      auto wanted = RunKernel(entries.back(), op_case, kParityState);
      auto got = RunKernel(filtering, op_case, kParityState);
      double error = 0, size = 0;
      for (int64_t i = 0; i < got[0].type.shape.elements(); ++i) {
        const double exact = wanted[0].floats()[i], off = got[0].floats()[i] - exact;
        size += exact * exact;
        error += off * off;
      }
      const double relative = std::sqrt(error / size);
      std::printf("%s %s: %.2e\n", op, op_case.label.c_str(), relative);
      EXPECT_LT(relative, 6e-3) << op << " " << op_case.label;
      ++compared;
    }
    if (compared == 0) GTEST_SKIP() << "in the order of tiles, or without AVX2";
    EXPECT_GE(compared, 2) << op;
  }
}

}  // namespace
}  // namespace lepton::engine_test
