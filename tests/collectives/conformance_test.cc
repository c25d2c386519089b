// The conformance suite over transports x ranks x (processes, threads) of the native back-end. The
// mpi and nccl back-ends run the same suite from mpi_conformance_main.cc and nccl_test.cc.
#include <gtest/gtest.h>

#include <memory>
#include <string_view>

#include "collectives/backends/native_backend.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/gang.h"

namespace lepton::collectives {
namespace {

struct Setting {
  TransportChoice transport;
  RanksAs ranks_as;
  int size;
  int lanes = 1;      // of TCP
  std::string hosts;  // a letter for the host of each rank: memory on one, TCP between two
};

std::string SettingName(const testing::TestParamInfo<Setting>& info) {
  std::string name = info.param.transport == TransportChoice::kTcp ? "Tcp" : "Shm";
  if (!info.param.hosts.empty()) name = "Hosts" + info.param.hosts;
  name += info.param.ranks_as == RanksAs::kThreads ? "Threads" : "Processes";
  name += std::to_string(info.param.size);
  const int lanes = info.param.lanes;
  return lanes == 1 ? name : name + "Over" + std::to_string(lanes) + "Lanes";
}

// ThreadSanitizer sees no race between processes, which under it take minutes.
std::vector<RanksAs> WaysToRunRanks() {
#ifdef LEPTON_TSAN
  return {RanksAs::kThreads};
#else
  return {RanksAs::kProcesses, RanksAs::kThreads};
#endif
}

std::vector<Setting> Settings() {
  std::vector<Setting> out;
  for (auto transport : {TransportChoice::kShm, TransportChoice::kTcp}) {
    for (auto ranks_as : WaysToRunRanks()) {
      for (int size : {1, 2, 3, 4}) out.push_back({transport, ranks_as, size});
    }
  }
  for (auto ranks_as : WaysToRunRanks()) {
    out.push_back({TransportChoice::kTcp, ranks_as, 3, 2});
    out.push_back({TransportChoice::kTcp, ranks_as, 4, 4});
  }
  for (const char* const hosts : {"aab", "aabb"}) {
    const int size = static_cast<int>(std::string_view(hosts).size());
    out.push_back({TransportChoice::kAuto, WaysToRunRanks().front(), size, 1, hosts});
  }
  return out;
}

class ConformanceTest : public testing::TestWithParam<Setting> {};

TEST_P(ConformanceTest, EveryOperationGivesTheExactBits) {
  const Setting& setting = GetParam();
  const NativeOptions native{.transport = setting.transport, .lanes = setting.lanes};
  const NativeBackend backend(native);
  GangOptions options{&backend, setting.size, setting.ranks_as};
  std::vector<std::unique_ptr<NativeBackend>> of_hosts;
  for (const char host : setting.hosts) {
    NativeOptions there = native;
    there.host = std::string(1, host);
    of_hosts.push_back(std::make_unique<NativeBackend>(there));
    options.backends.push_back(of_hosts.back().get());
  }
  std::vector<std::string> results = RunGang(options, RunConformance);
  ASSERT_EQ(results.size(), static_cast<size_t>(options.size));
  for (const auto& result : results) EXPECT_EQ(result, "");
}

INSTANTIATE_TEST_SUITE_P(Native, ConformanceTest, testing::ValuesIn(Settings()), SettingName);

}  // namespace
}  // namespace lepton::collectives
