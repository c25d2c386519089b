// Every CUDA kernel of the list against the CPU's reference of its op: on a GPU, or, in the program
// that links the emulation, on the same sources compiled for the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/kernels/kernel_list_cuda.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/cuda/cuda_test.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::graph {
// How a failing test names its kernel.
void PrintTo(const KernelEntry& entry, std::ostream* out) {
  *out << entry.op << " " << DTypeName(entry.dtype) << " " << entry.implementation;
}
}  // namespace lepton::graph

namespace lepton::cuda_test {
namespace {

using engine_test::HostTensor;
using engine_test::OpCase;
using graph::KernelEntry;

struct Size {
  int64_t rows, n;
};
// One element, odd and small, not a multiple of a warp, several tiles and blocks.
constexpr Size kSizes[] = {{1, 1}, {3, 7}, {33, 67}, {150, 130}, {5, 2100}};
constexpr graph::RunState kCudaState{12345, 7, 3};

const KernelEntry* ReferenceOf(std::string_view op, DType dtype) {
  const KernelEntry* reference = nullptr;
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.op == op && entry.dtype == dtype) reference = &entry;
  }
  return reference;
}

double CudaTolerance(const KernelEntry& entry, const OpCase& op_case) {
  for (const char* copy : {"cast", "dropout", "transpose", "slice", "gather", "reshape", "concat",
                           "positions", "fill", "broadcast_to", "slice_grad"}) {
    if (entry.op == copy) return 0;
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
  if (entry.op == "conv2d_weight_grad") return 5e-4;  // sums of up to 12,800 products
  if (entry.op.starts_with("conv2d")) return 2e-4;
  return 3e-5;
}

void ExpectClose(HostTensor& got, HostTensor& wanted, double tolerance, const std::string& what) {
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
    ASSERT_NEAR(value(got, i), reference, tolerance * (1 + std::abs(reference)))
        << what << ", element " << i;
  }
}

class CudaParity : public testing::TestWithParam<KernelEntry> {
 protected:
  void TearDown() override {
    if (least_work_) DeviceOrNull()->attentions()->set_least_work(*least_work_);
  }
  std::optional<int64_t> least_work_;  // of the library's attention, for the tests that follow
};

TEST_P(CudaParity, EqualsTheReference) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  const KernelEntry& entry = GetParam();
  if (entry.op.starts_with("conv2d") && entry.implementation.starts_with("library")) {
    if (entry.fuses) GTEST_SKIP() << "for what is rounded only (plan_test.cc)";
    if (device->convolutions() == nullptr) GTEST_SKIP() << "there is no cuDNN here";
  }
  if (entry.op.find("attention") != entry.op.npos && entry.implementation == "library") {
    if (device->attentions() == nullptr) GTEST_SKIP() << "there is no cuDNN here";
    least_work_ = device->attentions()->least_work();
    device->attentions()->set_least_work(0);
  }
  const KernelEntry* reference = ReferenceOf(entry.op, entry.dtype);
  ASSERT_NE(reference, nullptr);
  ASSERT_EQ(reference->implementation, "reference");
  int ran = 0;
  for (const Size& size : kSizes) {
    // Convolutions have their own sizes, of which these are all.
    if (entry.op.starts_with("conv2d") && size.rows > 33) break;
    for (OpCase& op_case : engine_test::CasesFor(entry.op, entry.dtype, size.rows, size.n)) {
      if (!engine_test::CanRun(entry, op_case, device)) continue;
      const std::string what =
          op_case.label + " rows " + std::to_string(size.rows) + " n " + std::to_string(size.n);
      auto got = engine_test::RunKernel(entry, op_case, kCudaState, device);
      auto wanted = engine_test::RunKernel(*reference, op_case, kCudaState);
      for (size_t i = 0; i < got.size(); ++i) {
        ExpectClose(got[i], wanted[i], CudaTolerance(entry, op_case),
                    what + " output " + std::to_string(i));
      }
      // Twice the same bits, whatever the order in which the threads of a block run.
      RunThreadsInReverse(true);
      auto again = engine_test::RunKernel(entry, op_case, kCudaState, device);
      RunThreadsInReverse(false);
      for (size_t i = 0; i < got.size(); ++i) {
        ExpectClose(again[i], got[i], 0, what + ", again, output " + std::to_string(i));
      }
      ++ran;
    }
  }
  EXPECT_GT(ran, 0) << "no case for this kernel";
}

INSTANTIATE_TEST_SUITE_P(EveryKernel, CudaParity,
                         testing::ValuesIn(kernels::CudaKernels().entries()), [](const auto& info) {
                           std::string name = std::string(info.param.op) + "_" +
                                              std::string(DTypeName(info.param.dtype)) + "_" +
                                              std::string(info.param.implementation);
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

const KernelEntry& EntryOf(std::string_view op, std::string_view implementation,
                           DType dtype = DType::kBF16) {
  for (const KernelEntry& entry : kernels::CudaKernels().entries()) {
    if (entry.op == op && entry.dtype == dtype && entry.implementation == implementation) {
      return entry;
    }
  }
  ADD_FAILURE() << "no kernel " << implementation << " of " << op;
  return kernels::CudaKernels().entries()[0];
}

// Of the whole tensor: its elements differ by what is rounded.
void ExpectSmallDifference(HostTensor& got, HostTensor& wanted, const char* what) {
  ASSERT_EQ(got.type, wanted.type) << what;
  double difference = 0, length = 0;
  for (int64_t i = 0; i < got.type.shape.elements(); ++i) {
    const auto value = [&](HostTensor& tensor) -> double {
      return tensor.type.dtype == DType::kBF16 ? BF16::ToFloat(tensor.data.as<BF16>()[i])
                                               : tensor.data.as<float>()[i];
    };
    const double a = value(got), b = value(wanted);
    difference += (a - b) * (a - b);
    length += b * b;
  }
  EXPECT_GT(length, 0) << what;
  EXPECT_LT(std::sqrt(difference / length), 0.02) << what;
}

// The parity of all kernels is of small cases, for which the library is not asked by itself: here
// is the size that bench/gpu_bench.cc times. No reference on the host is fast enough; our own code,
// which has its parity, is.
TEST(CudaAttention, OfTheLibraryEqualsOursAtTheSizeOfTheBench) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  if (device->attentions() == nullptr) GTEST_SKIP() << "there is no cuDNN here";
  const bool small = IsEmulated();
  const int64_t batch = small ? 1 : 8, tokens = small ? 70 : 1024;
  const int64_t heads = small ? 2 : 12, size = small ? 16 : 64;
  const int64_t least_work = device->attentions()->least_work();
  if (small) device->attentions()->set_least_work(0);
  const auto random = [&](int64_t width, uint64_t seed, double most) {
    return engine_test::RandomTensor({DType::kBF16, {batch, tokens, width}}, seed, -most, most);
  };
  const graph::Attributes attributes = {
      {"heads", heads}, {"kv_heads", heads}, {"causal", int64_t{1}}};
  OpCase forward = engine_test::MakeCase("", attributes, {}, random(3 * heads * size, 91, 3));
  const KernelEntry& library = EntryOf("packed_attention", "library");
  ASSERT_TRUE(engine_test::CanRun(library, forward, device));
  auto got = engine_test::RunKernel(library, forward, kCudaState, device);
  auto ours = engine_test::RunKernel(EntryOf("packed_attention", "tensor cores"), forward,
                                     kCudaState, device);
  ExpectSmallDifference(got[0], ours[0], "y");
  ExpectSmallDifference(got[1], ours[1], "logarithms of sums");
  OpCase backward =
      engine_test::MakeCase("", attributes, {}, std::move(forward.inputs[0]), std::move(ours[0]),
                            std::move(ours[1]), random(heads * size, 92, 1));
  const KernelEntry& gradient = EntryOf("packed_attention_grad", "library");
  ASSERT_TRUE(engine_test::CanRun(gradient, backward, device));
  auto slopes = engine_test::RunKernel(gradient, backward, kCudaState, device);
  auto our_slopes = engine_test::RunKernel(EntryOf("packed_attention_grad", "tensor cores"),
                                           backward, kCudaState, device);
  ExpectSmallDifference(slopes[0], our_slopes[0], "gradient");
  device->attentions()->set_least_work(least_work);
}

// More of what grows with a batch than a grid has along any axis but its first.
TEST(CudaLaunches, TakeAnyBatch) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  const FewBlocks few;
  const int64_t many = few.most() + 2;
  const auto check = [&](std::string_view op, OpCase op_case, double tolerance) {
    auto got = engine_test::RunKernel(EntryOf(op, "own", DType::kF32), op_case, kCudaState, device);
    auto wanted = engine_test::RunKernel(*ReferenceOf(op, DType::kF32), op_case, kCudaState);
    ExpectClose(got[0], wanted[0], tolerance, std::string(op));
  };
  // One token of one head each.
  check("packed_attention",
        engine_test::MakeCase("", {{"heads", int64_t{1}}, {"kv_heads", int64_t{1}}}, {},
                              engine_test::RandomTensor(engine_test::F32({many, 1, 3 * 2}), 93)),
        1e-6);
  check("gather_grad",
        engine_test::MakeCase("", {{"axis", int64_t{1}}}, {},
                              engine_test::RandomTensor(engine_test::F32({many, 3, 1}), 96),
                              engine_test::RandomTensor({DType::kI32, {3}}, 97, 0, 2),
                              engine_test::RandomTensor(engine_test::F32({many, 2, 1}), 98)),
        1e-6);
}

// A mask may be minus infinity, and hide all of the keys that are looked at first.
TEST(CudaAttention, ForgetsHiddenKeys) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  constexpr int64_t kTokens = 70, kHidden = 40;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    OpCase op_case = engine_test::MakeCase(
        "", {{"heads", int64_t{2}}, {"kv_heads", int64_t{2}}}, {},
        engine_test::RandomTensor({dtype, {1, kTokens, 3 * 2 * 8}}, 94, -1, 1),
        engine_test::RandomTensor(engine_test::F32({1, kTokens}), 95, -1, 1));
    std::fill_n(op_case.inputs[1].floats().begin(), kHidden, -INFINITY);
    auto wanted =
        engine_test::RunKernel(*ReferenceOf("packed_attention", dtype), op_case, kCudaState);
    for (const char* implementation : {"own", "tensor cores"}) {
      if (dtype == DType::kF32 && implementation != std::string_view("own")) continue;
      auto got = engine_test::RunKernel(EntryOf("packed_attention", implementation, dtype), op_case,
                                        kCudaState, device);
      ExpectClose(got[0], wanted[0], dtype == DType::kF32 ? 1e-4 : 3e-2, implementation);
    }
  }
}

// Whatever the CPU can run of the models' ops, in the types of training, the GPU can. Programs of
// int8 are refused on a device (nn/forward_program.cc), and so are divided models
// (nn/training_program.cc) and texts that go on from a cache (nn/inference_program.cc); losses in
// pieces are for plans on the host (graph/plan_builder.cc).
TEST(CudaKernelList, HasAKernelForEveryCaseOfEveryOp) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  for (const graph::Op* op : ops::OpList().ops()) {
    if (op->name().ends_with("_int8") || op->name().starts_with("tensor_")) continue;
    if (op->name() == "cached_attention" || op->name() == "rope_angles") continue;
    if (op->name().starts_with("linear_cross_entropy")) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      if (ReferenceOf(op->name(), dtype) == nullptr) continue;
      for (OpCase& op_case : engine_test::CasesFor(op->name(), dtype, 3, 5)) {
        if (op->name() == "rope" && op_case.inputs.size() == 2) continue;  // of such a text
        bool any = false;
        for (const KernelEntry& entry : kernels::CudaKernels().entries()) {
          any |= entry.op == op->name() && entry.dtype == dtype &&
                 engine_test::CanRun(entry, op_case, device);
        }
        EXPECT_TRUE(any) << op->name() << " of " << DTypeName(dtype) << ": " << op_case.label;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::cuda_test
