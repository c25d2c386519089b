// The conformance suite on the nccl back-end, where there are GPUs.
#include <gtest/gtest.h>

#include "collectives/communicator.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/gang.h"

namespace lepton::collectives {
namespace {

class NcclTest : public testing::TestWithParam<int> {};

// The parent leaves CUDA alone: it does not survive a fork.
TEST_P(NcclTest, EveryOperationGivesTheExactBits) {
  const Backend* backend = FindBackend("nccl").value();
  GangOptions options{backend, GetParam()};
  auto results = RunGang(options, RunConformance);
  for (const auto& result : results) {
    if (result.rfind("listen: FAILED_PRECONDITION", 0) == 0 ||
        result.find("NCCL needs one for each rank") != std::string::npos ||
        result.find("Duplicate GPU") != std::string::npos) {
      GTEST_SKIP() << "nccl cannot run with " << GetParam() << " ranks here: " << result;
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, "");
}

INSTANTIATE_TEST_SUITE_P(Nccl, NcclTest, testing::Values(1, 2, 3, 4));

TEST(NcclAvailabilityTest, SaysWhyItCannotRun) {
  GangOptions alone{FindBackend("native").value(), 1};
  std::string said = RunGang(
      alone, [](Communicator&) { return FindBackend("nccl").value()->Available().ToString(); })[0];
  std::printf("nccl: %s\n", said.c_str());
  if (said == "OK") GTEST_SKIP() << "it can run here";
  EXPECT_EQ(said.rfind("FAILED_PRECONDITION: ", 0), 0u) << said;
}

}  // namespace
}  // namespace lepton::collectives
