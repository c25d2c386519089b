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

// Whatever the CPU can run of the models' ops, in the types of training, the GPU can. Programs of
// int8 are refused on a device (nn/forward_program.cc), and so are divided models
// (nn/training_program.cc).
TEST(CudaKernelList, HasAKernelForEveryCaseOfEveryOp) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  for (const graph::Op* op : ops::OpList().ops()) {
    if (op->name().ends_with("_int8") || op->name().starts_with("tensor_")) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      if (ReferenceOf(op->name(), dtype) == nullptr) continue;
      for (OpCase& op_case : engine_test::CasesFor(op->name(), dtype, 3, 5)) {
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
