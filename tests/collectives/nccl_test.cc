// The conformance suite on the nccl back-end, where there are GPUs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <tuple>

#include "collectives/communicator.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/gang.h"

namespace lepton::collectives {
namespace {

// Ranks, and whether NCCL is told that each has a host of its own: then they may share a GPU, and
// speak over sockets.
class NcclTest : public testing::TestWithParam<std::tuple<int, bool>> {};

// The parent leaves CUDA alone: it does not survive a fork.
TEST_P(NcclTest, EveryOperationGivesTheExactBits) {
  const auto [ranks, apart] = GetParam();
  GangOptions options{FindBackend("nccl").value(), ranks};
  if (apart) {
    options.at_start = [](int rank) {
      ::setenv("NCCL_HOSTID", ("rank-" + std::to_string(rank)).c_str(), 1);
    };
  }
  auto results = RunGang(options, RunConformance);
  for (const auto& result : results) {
    // What keeps ranks together from one GPU does not keep those apart.
    if (result.rfind("listen: FAILED_PRECONDITION", 0) == 0 ||
        result.find("NCCL needs one for each rank") != std::string::npos ||
        (!apart && result.find("Duplicate GPU") != std::string::npos)) {
      GTEST_SKIP() << "nccl cannot run with " << ranks << " ranks here: " << result;
    }
  }
  for (const auto& result : results) EXPECT_EQ(result, "");
}

INSTANTIATE_TEST_SUITE_P(Nccl, NcclTest,
                         testing::Combine(testing::Values(1, 2, 3, 4), testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<1>(info.param) ? "Apart" : "Together") +
                                  std::to_string(std::get<0>(info.param));
                         });

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
