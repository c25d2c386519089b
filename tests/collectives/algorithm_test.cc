// Every algorithm gives the bits of the fixed tree, for any number of ranks: what
// conformance_test.cc shows for the algorithms that are chosen, here for those that could be.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "collectives/algorithms/algorithm.h"
#include "collectives/algorithms/link_algorithms.h"
#include "collectives/algorithms/tree_reduce.h"
#include "collectives/backends/mesh_communicator.h"
#include "collectives/backends/native_backend.h"
#include "tests/collectives/gang.h"
#include "tests/collectives/reference.h"

namespace lepton::collectives {
namespace {

// What does this operation with so many elements of float32.
std::string_view AlgorithmOf(const Communicator& comm, Operation operation, size_t count) {
  return static_cast<const MeshCommunicator&>(comm).AlgorithmOf(
      {.operation = operation, .count = count, .type = DataType::kFloat32});
}

// One rank's part: several sizes by one algorithm.
std::string AllReduceSizes(Communicator& comm, std::vector<size_t> counts) {
  uint64_t seed = 100;
  for (size_t count : counts) {
    for (auto [type, op] : {std::pair{DataType::kFloat32, ReduceOp::kSum},
                            std::pair{DataType::kBFloat16, ReduceOp::kMean},
                            std::pair{DataType::kUInt8, ReduceOp::kMean},
                            std::pair{DataType::kFloat16, ReduceOp::kMax}}) {
      auto data = MakeInput(comm.rank(), ++seed, count, type);
      Status status = comm.AllReduce(data.data(), data.data(), count, type, op);
      if (!status.ok()) return status.ToString();
      if (data != ExpectedReduction(comm.size(), seed, 0, count, type, op)) {
        return "wrong bits: " + std::to_string(count) + " " + std::string(DataTypeName(type));
      }
    }
  }
  return "";
}

struct Setting {
  TransportChoice transport;
  std::string algorithm;
};

class AllReduceAlgorithmTest : public testing::TestWithParam<Setting> {};

TEST_P(AllReduceAlgorithmTest, BitsAreTheTreesForAnyNumberOfRanks) {
  NativeBackend backend({GetParam().transport, GetParam().algorithm});
  std::atomic<int> used = 0;  // it is not usable for every number of ranks and every size
  for (int size : {2, 3, 4, 5, 6, 7, 8, 9}) {
    GangOptions options{&backend, size, RanksAs::kThreads};
    auto results = RunGang(options, [&](Communicator& comm) {
      const std::vector<size_t> counts = {0, 1, 5, 24, 25, 1021, 4000, 300001};
      for (const size_t count : counts) {
        used += AlgorithmOf(comm, Operation::kAllReduce, count) == GetParam().algorithm;
      }
      return AllReduceSizes(comm, counts);
    });
    for (const auto& result : results) ASSERT_EQ(result, "") << size << " ranks";
  }
  EXPECT_GT(used, 0) << GetParam().algorithm << " was never used";
}

std::vector<Setting> Settings() {
  std::vector<Setting> out;
  for (const Algorithm& algorithm : Algorithms()) {
    if (algorithm.operation != Operation::kAllReduce) continue;
    if (algorithm.run == HierarchicalAllReduce) continue;  // of ranks on several hosts: HostsTest
    std::string name(algorithm.name);
    out.push_back({TransportChoice::kShm, name});
    if (name.rfind("shared", 0) != 0) out.push_back({TransportChoice::kTcp, name});
  }
  return out;
}

// The point of the leaves: each rank adds up those that it holds, the group goes on in their tree.
TEST_P(AllReduceAlgorithmTest, BitsAreTheSameForAnyNumberOfRanksThatHoldTheLeaves) {
  constexpr int kLeaves = 6;
  constexpr size_t kCount = 1021;
  NativeBackend backend({GetParam().transport, GetParam().algorithm});
  std::atomic<int> used = 0;
  for (int size : {2, 3, 4, 5, 6, 7}) {
    GangOptions options{.backend = &backend, .size = size, .ranks_as = RanksAs::kThreads};
    options.leaves = kLeaves;
    auto results = RunGang(options, [&](Communicator& comm) -> std::string {
      used += AlgorithmOf(comm, Operation::kAllReduce, kCount) == GetParam().algorithm;
      const auto [begin, end] = LeavesOf(comm.rank(), comm.size(), kLeaves);
      // 16-bit floats as partial sums: rounded everywhere, so nowhere differently.
      std::vector<uint16_t> halves(kCount, 0x8000);
      std::vector<std::vector<unsigned char>> half_inputs;
      std::vector<const void*> half_pointers;
      for (int leaf = begin; leaf < end; ++leaf) {
        half_inputs.push_back(MakeInput(leaf, 4, kCount, DataType::kBFloat16));
      }
      for (auto& input : half_inputs) half_pointers.push_back(input.data());
      if (begin < end) {
        TreeReduce(halves.data(), half_pointers.data(), TreeSplits(end - begin, end - begin),
                   kCount, DataType::kBFloat16, ReduceOp::kRoundedSum);
      }
      Status reduced = comm.AllReduce(halves.data(), halves.data(), kCount, DataType::kBFloat16,
                                      ReduceOp::kRoundedSum);
      if (!reduced.ok()) return reduced.ToString();
      const auto rounded =
          ExpectedReduction(kLeaves, 4, 0, kCount, DataType::kBFloat16, ReduceOp::kRoundedSum);
      if (std::memcmp(halves.data(), rounded.data(), rounded.size()) != 0) return "other halves";
      std::vector<float> sum(kCount, -0.0f);
      std::vector<std::vector<unsigned char>> inputs;
      std::vector<const void*> pointers;
      for (int leaf = begin; leaf < end; ++leaf) {
        inputs.push_back(MakeInput(leaf, 3, kCount, DataType::kFloat32));
      }
      for (auto& input : inputs) pointers.push_back(input.data());
      if (begin < end) {
        TreeReduce(sum.data(), pointers.data(), TreeSplits(end - begin, end - begin), kCount,
                   DataType::kFloat32, ReduceOp::kSum);
      }
      Status status =
          comm.AllReduce(sum.data(), sum.data(), kCount, DataType::kFloat32, ReduceOp::kSum);
      if (!status.ok()) return status.ToString();
      const auto expected =
          ExpectedReduction(kLeaves, 3, 0, kCount, DataType::kFloat32, ReduceOp::kSum);
      return std::memcmp(sum.data(), expected.data(), expected.size()) == 0 ? "" : "other bits";
    });
    for (const auto& result : results) ASSERT_EQ(result, "") << size << " ranks";
  }
  EXPECT_GT(used, 0) << GetParam().algorithm << " was never used";
}

INSTANTIATE_TEST_SUITE_P(Native, AllReduceAlgorithmTest, testing::ValuesIn(Settings()),
                         [](const auto& info) {
                           bool tcp = info.param.transport == TransportChoice::kTcp;
                           return info.param.algorithm + (tcp ? "_tcp" : "_shm");
                         });

// Ranks on several hosts, a letter for the host of each: links of both kinds in one group.
class HostsTest : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  std::vector<std::string> Run(const RankBody& body, int leaves = 0) const {
    const auto& [hosts, algorithm] = GetParam();
    std::vector<std::unique_ptr<NativeBackend>> backends;
    GangOptions options{.size = static_cast<int>(hosts.size()), .ranks_as = RanksAs::kThreads};
    options.leaves = leaves;
    for (const char host : hosts) {
      backends.push_back(std::make_unique<NativeBackend>(
          NativeOptions{.algorithm = algorithm, .host = std::string(1, host)}));
      options.backends.push_back(backends.back().get());
    }
    return RunGang(options, body);
  }
  // Empty, or what does an operation in the place of the algorithm that the test is named for.
  static std::string Instead(const Communicator& comm, Operation operation, size_t count) {
    const std::string_view used = AlgorithmOf(comm, operation, count);
    const std::string& named = std::get<1>(GetParam());
    if (used == named) return "";
    return std::string(OperationName(operation)) + " by " + std::string(used) + ", not " + named;
  }
};

TEST(Algorithms, RanksThatWereToldDifferentOnesChooseAlike) {
  const NativeBackend sliced(NativeOptions{.algorithm = "shared_sliced"});
  const NativeBackend usual(NativeOptions{});
  for (const auto& backends : {std::vector<const Backend*>{&sliced, &usual}, {&usual, &sliced}}) {
    GangOptions options{.size = 2, .ranks_as = RanksAs::kThreads};
    options.backends = backends;
    const auto results = RunGang(options, [](Communicator& comm) -> std::string {
      return AllReduceSizes(comm, {1 << 12, 1 << 18});
    });
    for (const std::string& result : results) EXPECT_EQ(result, "");
  }
}

TEST_P(HostsTest, BitsAreTheTrees) {
  const auto results = Run([](Communicator& comm) {
    const std::string instead = Instead(comm, Operation::kAllReduce, 1021);
    return instead.empty() ? AllReduceSizes(comm, {0, 1, 25, 1021, 70001, 600007}) : instead;
  });
  for (const auto& result : results) EXPECT_EQ(result, "");
}

TEST_P(HostsTest, BitsAreTheTreesWhereRanksHoldLeavesOrNone) {
  constexpr size_t kCount = 100003;
  const auto size = static_cast<int>(std::get<0>(GetParam()).size());
  for (const int leaves : {2, 5, 16}) {
    const auto results = Run(
        [&](Communicator& comm) -> std::string {
          for (const int holders : {comm.size(), 1}) {
            comm.HoldLeaves(holders);
            const auto [begin, end] = LeavesOf(comm.rank(), holders, leaves);
            std::vector<float> sum(kCount, -0.0f), out(kCount);
            std::vector<std::vector<unsigned char>> inputs;
            std::vector<const void*> pointers;
            for (int leaf = begin; leaf < end; ++leaf) {
              inputs.push_back(MakeInput(leaf, 3, kCount, DataType::kFloat32));
            }
            for (auto& input : inputs) pointers.push_back(input.data());
            if (begin < end) {
              TreeReduce(sum.data(), pointers.data(), TreeSplits(end - begin, end - begin), kCount,
                         DataType::kFloat32, ReduceOp::kSum);
            }
            const Status status =
                comm.AllReduce(sum.data(), out.data(), kCount, DataType::kFloat32, ReduceOp::kSum);
            if (!status.ok()) return status.ToString();
            const auto expected =
                ExpectedReduction(leaves, 3, 0, kCount, DataType::kFloat32, ReduceOp::kSum);
            if (std::memcmp(out.data(), expected.data(), expected.size()) != 0) {
              return "other bits with " + std::to_string(holders) + " holders";
            }
          }
          return "";
        },
        leaves);
    for (const auto& result : results) EXPECT_EQ(result, "") << leaves << " leaves, " << size;
  }
}

// Every rank's part is its host's and the others' partial sums; several blocks of the longest.
TEST_P(HostsTest, PartsOfScatteredSumsHaveTheTreesBits) {
  const auto results = Run([](Communicator& comm) -> std::string {
    if (std::get<1>(GetParam()) != "tree") {  // there is none of reduce-scatters
      const std::string instead = Instead(comm, Operation::kReduceScatter, 1021);
      if (!instead.empty()) return instead;
    }
    uint64_t seed = 300;
    for (const size_t count : {size_t{0}, size_t{1}, size_t{1021}, size_t{30001}, size_t{150003}}) {
      for (const auto& [type, op] : {std::pair{DataType::kFloat32, ReduceOp::kSum},
                                     std::pair{DataType::kBFloat16, ReduceOp::kSum},
                                     std::pair{DataType::kBFloat16, ReduceOp::kRoundedSum},
                                     std::pair{DataType::kUInt8, ReduceOp::kMean},
                                     std::pair{DataType::kFloat16, ReduceOp::kMax}}) {
        const auto rank = static_cast<size_t>(comm.rank());
        auto in = MakeInput(comm.rank(), ++seed, count * static_cast<size_t>(comm.size()), type);
        const size_t bytes = count * DataTypeSize(type);
        std::vector<unsigned char> out(bytes);
        const auto expected = ExpectedReduction(comm.size(), seed, rank * count, count, type, op);
        Status status = comm.ReduceScatter(in.data(), out.data(), count, type, op);
        if (!status.ok()) return status.ToString();
        if (out != expected) return "wrong bits: " + std::to_string(count);
        unsigned char* const mine = in.data() + rank * bytes;
        status = comm.ReduceScatter(in.data(), mine, count, type, op);
        if (!status.ok()) return status.ToString();
        if (!std::equal(expected.begin(), expected.end(), mine)) return "wrong bits in place";
      }
    }
    return "";
  });
  for (const auto& result : results) EXPECT_EQ(result, "");
}

// From every root, and into memory where the own part lies already.
TEST_P(HostsTest, WhatIsCopiedIsWhatWasGiven) {
  const auto results = Run([](Communicator& comm) -> std::string {
    if (std::get<1>(GetParam()) == "hierarchical") {
      for (const Operation operation : {Operation::kAllGather, Operation::kBroadcast}) {
        const std::string instead = Instead(comm, operation, 1);
        if (!instead.empty()) return instead;
      }
    }
    for (const size_t count : {size_t{1}, size_t{70000}, size_t{600001}}) {
      std::vector<std::vector<unsigned char>> all;
      for (int r = 0; r < comm.size(); ++r) all.push_back(MakeInput(r, 9, count, DataType::kUInt8));
      std::vector<unsigned char> gathered(count * static_cast<size_t>(comm.size()));
      unsigned char* const mine = gathered.data() + count * static_cast<size_t>(comm.rank());
      std::memcpy(mine, all[comm.rank()].data(), count);
      Status status = comm.AllGather(mine, gathered.data(), count, DataType::kUInt8);
      if (!status.ok()) return status.ToString();
      for (int r = 0; r < comm.size(); ++r) {
        const unsigned char* const part = gathered.data() + count * static_cast<size_t>(r);
        if (std::memcmp(part, all[r].data(), count) != 0) {
          return "rank " + std::to_string(r) + " was gathered wrongly";
        }
        std::vector<unsigned char> sent(count);
        if (comm.rank() == r) sent = all[r];
        status = comm.Broadcast(sent.data(), count, DataType::kUInt8, r);
        if (!status.ok()) return status.ToString();
        if (sent != all[r]) return "root " + std::to_string(r) + " gave something else";
      }
    }
    return "";
  });
  for (const auto& result : results) EXPECT_EQ(result, "");
}

std::vector<std::tuple<std::string, std::string>> HostSettings() {
  std::vector<std::tuple<std::string, std::string>> out;
  for (const char* const hosts :
       {"ab", "aabb", "abab", "abbbb", "aaab", "aabbcc", "aaaabbbb", "abcaabbca"}) {
    for (const char* const algorithm : {"hierarchical", "owner", "tree"}) {
      // Among hosts of one rank each nothing is.
      if (std::string(hosts) != "ab" || std::string(algorithm) != "hierarchical") {
        out.emplace_back(hosts, algorithm);
      }
    }
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Native, HostsTest, testing::ValuesIn(HostSettings()),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param);
                         });

// Blocking calls queue behind asynchronous ones, and results come in order.
TEST(AsyncTest, OperationsRunInOrderAndBlockingCallsWaitForThem) {
  NativeBackend backend;
  GangOptions options{&backend, 3, RanksAs::kThreads};
  auto results = RunGang(options, [](Communicator& comm) -> std::string {
    constexpr size_t kCount = 5000;
    std::vector<std::vector<float>> data(8, std::vector<float>(kCount, 1.0f));
    std::vector<HandlePtr> handles;
    for (auto& d : data) {
      handles.push_back(
          comm.AllReduceAsync(d.data(), d.data(), kCount, DataType::kFloat32, ReduceOp::kSum));
    }
    Status barrier = comm.Barrier();
    if (!barrier.ok()) return barrier.ToString();
    for (size_t i = 0; i < data.size(); ++i) {
      if (!handles[i]->Done()) return "the barrier overtook operation " + std::to_string(i);
      if (data[i] != std::vector<float>(kCount, 3.0f)) return "wrong sum";
    }
    comm.AllReduceAsync(data[0].data(), data[0].data(), kCount, DataType::kFloat32,
                        ReduceOp::kSum);  // the handle's destructor waits
    return data[0] == std::vector<float>(kCount, 9.0f) ? "" : "wrong sum after a dropped handle";
  });
  for (const auto& result : results) EXPECT_EQ(result, "");
}

}  // namespace
}  // namespace lepton::collectives
