// Every kernel of the list against the reference of its op, over sizes and element types; and the
// vector kernels against each other, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "runtime/tensor/counter_random.h"
#include "tests/runtime/engine/absent_kernels.h"
#include "tests/runtime/engine/op_cases.h"

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
constexpr graph::RunState kParityState{12345, 7, 3};

std::vector<KernelEntry> EntriesOf(std::string_view op, DType dtype) {
  std::vector<KernelEntry> entries;
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.op == op && entry.dtype == dtype) entries.push_back(entry);
  }
  return entries;
}

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

void ExpectNear(HostTensor& got, HostTensor& wanted, double tolerance, const std::string& what) {
  ASSERT_EQ(got.type, wanted.type) << what;
  if (tolerance == 0) {
    EXPECT_EQ(std::memcmp(got.data.data(), wanted.data.data(), got.data.size()), 0) << what;
    return;
  }
  const bool bf16 = got.type.dtype == DType::kBF16;
  ASSERT_TRUE(bf16 || got.type.dtype == DType::kF32) << what;
  const auto value = [&](HostTensor& tensor, int64_t i) {
    return bf16 ? BF16::ToFloat(tensor.data.as<BF16>()[i]) : tensor.data.as<float>()[i];
  };
  if (bf16) tolerance = std::max(tolerance, 1.0 / 128);  // a number that is rounded either way
  for (int64_t i = 0; i < got.type.shape.elements(); ++i) {
    const double reference = value(wanted, i);
    const double bound = tolerance * (1 + std::abs(reference));
    ASSERT_NEAR(value(got, i), reference, bound) << what << ", element " << i;
  }
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

std::vector<const kernels::simd::Loops*> LoopSets() {
  std::vector<const kernels::simd::Loops*> sets = {&kernels::simd::BaselineLoops()};
  if (kernels::simd::CpuHasAvx2()) sets.push_back(&kernels::simd::Avx2Loops());
  if (kernels::simd::CpuHasAvx512()) sets.push_back(&kernels::simd::Avx512Loops());
  return sets;
}

// With an instruction for it or without, in every place that rounds: normal numbers as BF16 does,
// denormal ones to 0.
TEST(VectorKernels, RoundToBf16BitForBit) {
  std::vector<float> x;
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  x.resize(x.size() + 13, 1.0f);  // a last part that fills no vector
  const auto count = static_cast<int64_t>(x.size());
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<uint16_t> halves(count), rows(count);
    std::vector<float> rounded(count);
    loops->to_bf16(count, x.data(), halves.data());
    loops->to_bf16_rows(count / 45, 45, x.data(), 45, rows.data(), 45);
    loops->round_bf16(count, x.data(), rounded.data());
    for (int64_t i = 0; i < count; ++i) {
      const auto word = std::bit_cast<uint32_t>(x[i]);
      const bool denormal = (word & 0x7f800000u) == 0;
      const uint16_t wanted = denormal ? word >> 16 & 0x8000u : BF16::FromFloat(x[i]).bits;
      ASSERT_EQ(halves[i], wanted) << loops->name << " " << std::hex << word;
      ASSERT_EQ(std::bit_cast<uint32_t>(rounded[i]), uint32_t{wanted} << 16) << loops->name;
      if (i < count / 45 * 45) {
        ASSERT_EQ(rows[i], wanted) << loops->name << " " << std::hex << word;
      }
    }
  }
}

// Whose pixels come in stretches of 16 and of fewer; results as wide as they may be.
TEST(VectorKernels, TilesOfBf16AreTransformedBitForBit) {
  using Turned = kernels::simd::TurnedTiles;
  constexpr int64_t kPlaces = 150, kPlane = 60, kChannels = 64, kNumbers = 64 * 32;
  std::vector<Turned::Stretch> stretches = {{3, 16, {}}, {20, 16, {}}, {41, 7, {}}};
  std::vector<int32_t> zeros, tiles;
  std::vector<bool> filled(kPlaces);
  for (Turned::Stretch& stretch : stretches) {
    for (int32_t i = 0; i < stretch.count; ++i) {
      stretch.to[i] = static_cast<int32_t>((stretch.from + i) * 7 % kPlaces);
      filled[stretch.to[i]] = true;
    }
  }
  for (int32_t place = 0; place < kPlaces; ++place) {
    if (!filled[place]) zeros.push_back(place);
  }
  for (int32_t tile = 0; tile < 32; ++tile) tiles.push_back(tile * 3);
  const Turned turned{stretches.data(), 3,  zeros.data(), static_cast<int64_t>(zeros.size()),
                      tiles.data(),     10, kPlaces};
  HostTensor x = RandomTensor({DType::kBF16, {kChannels, kPlane}}, 1, -1, 1);
  HostTensor m = RandomTensor({DType::kF32, {16, 32, 32}}, 2, -1, 1);
  std::vector<int32_t> places(64);
  for (int32_t i = 0; i < 64; ++i) places[i] = 2 * i;
  using Halves = std::vector<uint16_t>;
  std::vector<Halves> first;
  int sets = 0;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    const auto* numbers = x.data.as<uint16_t>();
    // What memory held does not matter.
    std::vector<float> room(kPlaces * 32, static_cast<float>(++sets)), pixels(128 * 32);
    std::vector<Halves> got;
    for (const int64_t channels : {32, 64}) {
      got.emplace_back(16 * kNumbers);
      loops->turned_tiles.to_blocks(turned, channels, numbers, kPlane, room.data(),
                                    got.back().data(), kNumbers);
    }
    for (const auto to_panel :
         {loops->turned_tiles.inputs_to_panel, loops->turned_tiles.gradients_to_panel}) {
      for (const int64_t channels : {32, 5}) {
        got.emplace_back(16 * kNumbers);
        to_panel(turned, channels, numbers, kPlane, room.data(), got.back().data(), kNumbers);
      }
    }
    loops->turned_tiles.to_pixels(32, m.data.as<float>(), 32 * 32, places.data(), pixels.data());
    for (const int64_t count : {128, 37}) {
      got.emplace_back(32 * 128);
      loops->turned_tiles.pixels_to_bf16(count, count == 37 ? 29 : 32, pixels.data(),
                                         got.back().data(), 128);
    }
    std::vector<float> taps(32 * 9 * 16);
    loops->turned_tiles.channels_of_taps(32 * 9, m.data.as<float>(), 700, taps.data());
    EXPECT_EQ(taps[200 * 16 + 3], m.data.as<float>()[3 * 700 + 200]) << loops->name;
    for (const int64_t pitch : {16, -16}) {
      got.emplace_back(16 * kNumbers);
      loops->turned_tiles.weights_to_panel(32, taps.data() + (pitch < 0 ? 8 * 16 : 0), pitch,
                                           got.back().data(), kNumbers);
    }
    if (first.empty()) first = got;
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], first[i]) << loops->name << " " << i;
  }
}

// The pieces meet, and end: from beyond the last on both sides.
TEST(VectorKernels, GeluAndItsGradientAreExactToSingle) {
  constexpr double kPi = std::numbers::pi;
  std::vector<float> x;
  for (int i = -90'003; i <= 90'000; ++i) x.push_back(static_cast<float>(i) * 1e-4f);
  for (const float far : {-1e30f, -100.0f, 100.0f, 1e30f}) x.push_back(far);
  const auto count = static_cast<int64_t>(x.size());
  const std::vector<float> ones(count, 1.0f);
  std::vector<float> y(count), dx(count), tanh_y(count), tanh_dx(count);
  for (const kernels::simd::Loops* loops : LoopSets()) {
    loops->gelu(count, x.data(), y.data());
    loops->gelu_grad(count, x.data(), ones.data(), dx.data());
    loops->gelu_tanh(count, x.data(), tanh_y.data());
    loops->gelu_tanh_grad(count, x.data(), ones.data(), tanh_dx.data());
    for (int64_t i = 0; i < count; ++i) {
      const double a = x[i], bound = 1e-7 * std::max(4.0, std::abs(a) * 2);
      const double cdf = 0.5 * std::erfc(-a / std::sqrt(2.0));
      ASSERT_NEAR(y[i], a * cdf, bound) << loops->name << " " << a;
      const double density = std::exp(-a * a / 2) / std::sqrt(2 * kPi);
      ASSERT_NEAR(dx[i], cdf + a * density, 3e-7) << loops->name << " " << a;
      const double size = std::min(std::abs(a), 50.0), c = 2 * std::sqrt(2 / kPi);
      const double u = std::copysign(c * (size + 0.044715 * size * size * size), a);
      const double s = 1 / (1 + std::exp(-u)), slope = c * (1 + 3 * 0.044715 * size * size);
      ASSERT_NEAR(tanh_y[i], a * s, bound) << loops->name << " " << a;
      ASSERT_NEAR(tanh_dx[i], s + std::copysign(size, a) * s * (1 - s) * slope, 3e-7)
          << loops->name << " " << a;
    }
  }
}

// At once, as a product's followers run them, or one after the other; rows that fill vectors, and
// such that do not.
TEST(VectorKernels, GeluWithWhatSurroundsItHasTheSameBits) {
  constexpr int64_t kRows = 3, kPitch = 80, kTo = 90;
  auto x = RandomTensor(F32({kRows, kPitch}), 1, -9, 9);
  auto bias = RandomTensor(F32({kPitch}), 2, -1, 1);
  std::vector<std::vector<uint16_t>> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<std::vector<uint16_t>> all;
    for (const bool tanh : {false, true}) {
      for (const int64_t columns : {32, 45, 7, 80}) {
        for (const bool biased : {false, true}) {
          std::vector<uint16_t> before(kRows * kTo, 1), y(kRows * kTo, 1), dx(kRows * kTo, 1);
          (tanh ? loops->gelu_tanh_rows : loops->gelu_rows)(
              kRows, columns, x.data.as<float>(), kPitch, biased ? bias.data.as<float>() : nullptr,
              before.data(), y.data(), kTo);
          (tanh ? loops->gelu_tanh_grad_rows : loops->gelu_grad_rows)(
              kRows, columns, before.data(), kTo, x.data.as<float>(), kPitch, dx.data());
          std::vector<uint16_t> alone(kRows * kTo, 1);
          (tanh ? loops->gelu_tanh_rows : loops->gelu_rows)(
              kRows, columns, x.data.as<float>(), kPitch, biased ? bias.data.as<float>() : nullptr,
              nullptr, alone.data(), kTo);
          EXPECT_EQ(alone, y) << loops->name;
          for (int64_t row = 0; row < kRows; ++row) {
            std::vector<float> sum(columns), gelu(columns), slope(columns);
            const float* from = x.data.as<float>() + row * kPitch;
            for (int64_t i = 0; i < columns; ++i) {
              sum[i] = biased ? from[i] + bias.floats()[i] : from[i];
            }
            loops->round_bf16(columns, sum.data(), sum.data());
            (tanh ? loops->gelu_tanh : loops->gelu)(columns, sum.data(), gelu.data());
            (tanh ? loops->gelu_tanh_grad : loops->gelu_grad)(columns, sum.data(), from,
                                                              slope.data());
            std::vector<uint16_t> wanted(columns);
            const auto expect = [&](const std::vector<float>& values, const uint16_t* got) {
              loops->to_bf16(columns, values.data(), wanted.data());
              EXPECT_EQ(std::memcmp(got, wanted.data(), 2 * columns), 0) << loops->name << columns;
            };
            expect(sum, before.data() + row * kTo);
            expect(gelu, y.data() + row * kTo);
            expect(slope, dx.data() + row * kTo);
            for (const auto& to : {before, y, dx}) {
              EXPECT_EQ(to[row * kTo + columns], 1) << loops->name << columns;
            }
          }
          all.insert(all.end(), {before, y, dx});
        }
      }
    }
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << loops->name;
  }
}

TEST(VectorKernels, ANormalisedRowHasTheSameBitsInAnyCompany) {
  constexpr int64_t kRows = 7, kColumns = 45;
  auto x = RandomTensor(F32({kRows, kColumns}), 1, -9, 9);
  auto gain = RandomTensor(F32({kColumns}), 2, -1, 1);
  std::vector<float> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<float> y(kRows * kColumns), alone(kColumns), mean(kRows), rstd(kRows);
    loops->layer_norm(kRows, kColumns, 1e-5f, x.data.as<float>(), gain.data.as<float>(),
                      gain.data.as<float>(), y.data(), mean.data(), rstd.data());
    for (int64_t row = 0; row < kRows; ++row) {
      float one_mean = 0, one_rstd = 0;
      loops->layer_norm(1, kColumns, 1e-5f, x.data.as<float>() + row * kColumns,
                        gain.data.as<float>(), gain.data.as<float>(), alone.data(), &one_mean,
                        &one_rstd);
      EXPECT_EQ(std::memcmp(alone.data(), y.data() + row * kColumns, 4 * kColumns), 0);
      EXPECT_EQ(one_mean, mean[row]);
      EXPECT_EQ(one_rstd, rstd[row]);
    }
    if (first.empty()) first = y;
    EXPECT_EQ(y, first) << loops->name;
  }
}

// Whatever the vector width, and where a fill begins or ends: each number follows from its place.
TEST(VectorKernels, RandomFillsAreTheNumbersOfTheirKey) {
  const RandomKey key{77, 5, (uint64_t{3} << 32) + 9, 2};
  constexpr int64_t kCount = 70'003;
  std::vector<float> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<float> uniform(kCount), normal(kCount), part(17);
    loops->uniform(0, kCount, key, 0.5f, uniform.data());
    loops->normal(0, kCount, key, 2.5, normal.data());
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < kCount; i += 2) {
      const auto bits = RandomBlock(key, static_cast<uint32_t>(i / 4));
      const uint32_t a = bits[i % 4], b = bits[i % 4 + 1];
      ASSERT_EQ(uniform[i], (2 * UniformFromBits(a) - 1) * 0.5f) << loops->name << " " << i;
      const double radius = std::sqrt(-2 * std::log((a + 0.5) / 4294967296.0));
      const double angle = 2 * std::numbers::pi * (b / 4294967296.0);
      ASSERT_NEAR(normal[i], 2.5 * radius * std::cos(angle), 1e-6) << loops->name << " " << i;
      if (i + 1 < kCount) {
        ASSERT_NEAR(normal[i + 1], 2.5 * radius * std::sin(angle), 1e-6) << loops->name << " " << i;
      }
      sum += normal[i];
      squares += double{normal[i]} * normal[i];
    }
    EXPECT_NEAR(sum / (kCount / 2), 0, 0.05);
    EXPECT_NEAR(std::sqrt(squares / (kCount / 2)), 2.5, 0.05);
    loops->normal(5, 17, key, 2.5, part.data());
    EXPECT_EQ(std::memcmp(part.data(), normal.data() + 20, sizeof(float) * 17), 0);
    if (first.empty()) first = normal;
    EXPECT_EQ(std::memcmp(first.data(), normal.data(), sizeof(float) * kCount), 0) << loops->name;
  }
}

// The published vectors of Philox 4x32-10 (Random123's kat_vectors): counter and key all zero.
TEST(CounterRandom, EqualsThePublishedVector) {
  EXPECT_THAT(RandomBlock({0, 0, 0, 0}, 0),
              testing::ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
}

}  // namespace
}  // namespace lepton::engine_test
