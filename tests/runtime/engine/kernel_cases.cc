#include "tests/runtime/engine/kernel_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/kernels/kernel_list_cpu.h"

namespace lepton::engine_test {

using graph::KernelEntry;

std::vector<KernelEntry> EntriesOf(std::string_view op, DType dtype) {
  std::vector<KernelEntry> entries;
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.op == op && entry.dtype == dtype) entries.push_back(entry);
  }
  return entries;
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

}  // namespace lepton::engine_test
