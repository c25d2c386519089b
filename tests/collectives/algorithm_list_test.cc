// Which algorithm a group takes for a call.
#include <gtest/gtest.h>

#include "collectives/algorithms/algorithm.h"
#include "collectives/algorithms/tree_reduce.h"
#include "collectives/transport/link_mesh.h"

namespace lepton::collectives {
namespace {

TEST(HostTreeTest, UnitsAreTheLargestSubtreesOfAHost) {
  const auto units_of = [](const HostTree& tree) {
    std::string text;
    for (const HostTree::Unit& unit : tree.units) {
      text += std::to_string(unit.host) + ":" + std::to_string(unit.first) + "+" +
              std::to_string(unit.ranks()) + " ";
    }
    return text;
  };
  const auto tree_of = [](const std::vector<int>& hosts) {
    const auto size = static_cast<int>(hosts.size());
    return MakeHostTree(TreeSplits(size, size), hosts);
  };
  EXPECT_EQ(units_of(tree_of({7, 7, 7, 7, 5, 5, 5, 5})), "0:0+4 1:4+4 ");
  EXPECT_EQ(units_of(tree_of({0, 1, 0, 1})), "0:0+1 1:1+1 0:2+1 1:3+1 ");
  // ((0+1)+(2+3))+4: ranks 1 to 4 of a host are three of its subtrees.
  EXPECT_EQ(units_of(tree_of({0, 1, 1, 1, 1})), "0:0+1 1:1+1 1:2+2 1:4+1 ");
  const HostTree even = tree_of({0, 0, 0, 0, 1, 1, 1, 1});
  EXPECT_EQ(even.splits, std::vector<int>{1});
  EXPECT_EQ(even.units[1].splits, (std::vector<int>{2, 1, 1}));
  EXPECT_EQ(even.SentByRanks(), 4);  // 2 * 4 * 4 / 8
  EXPECT_EQ(even.SentByUnits(1), 1);
  EXPECT_EQ(even.SentByUnits(2), 1.5);
  EXPECT_EQ(even.ScatteredByRanks(), 2);
  EXPECT_EQ(even.ScatteredByUnits(1), 0.5);  // 4 of 8 parts
  EXPECT_EQ(even.ScatteredByUnits(2), 1);
  EXPECT_EQ(tree_of({0, 1, 1, 1, 1}).ScatteredByUnits(1), 0.8);  // of the one rank; 3 * 1 / 5
}

TEST(AlgorithmListTest, LongSumsOfSeveralHostsAreHierarchicalWhereThatSendsLess) {
  auto failure = Failure::Make(1).value();
  LinkMesh mesh({}, failure, Waiter(*failure, nullptr, true));
  const auto name_of = [&](const std::vector<int>& hosts, size_t count,
                           DataType type = DataType::kFloat32,
                           Operation operation = Operation::kAllReduce) {
    const auto size = static_cast<int>(hosts.size());
    Group group{.rank = 0,
                .size = size,
                .mesh = mesh,
                .window = nullptr,
                .leaves = size,
                .splits = TreeSplits(size, size)};
    group.host_tree = MakeHostTree(group.splits, hosts);
    return ChooseAlgorithm(group, {.operation = operation, .count = count, .type = type}).name;
  };
  constexpr size_t kMany = 1 << 20;
  EXPECT_EQ(name_of({0, 0, 1, 1}, kMany), "hierarchical");
  EXPECT_EQ(name_of({0, 0, 1, 1}, kMany, DataType::kBFloat16), "hierarchical");
  EXPECT_EQ(name_of({0, 0, 1, 1}, 1 << 13), "owner");
  EXPECT_EQ(name_of({0, 0, 0, 0}, kMany), "owner");
  EXPECT_EQ(name_of({0, 1, 2, 3}, kMany), "owner");
  EXPECT_EQ(name_of({0, 1, 0, 1}, kMany, DataType::kBFloat16), "owner");  // two wide units a host
  const auto scatter_of = [&](const std::vector<int>& hosts, size_t count,
                              DataType type = DataType::kFloat32) {
    return name_of(hosts, count, type, Operation::kReduceScatter);
  };
  EXPECT_EQ(scatter_of({0, 0, 1, 1}, kMany), "hierarchical");
  EXPECT_EQ(scatter_of({0, 0, 1, 1}, 1 << 12), "hierarchical");  // 64 KiB together
  EXPECT_EQ(scatter_of({0, 0, 1, 1}, 1 << 11), "owner");
  EXPECT_EQ(scatter_of({0, 0, 1, 1}, kMany, DataType::kBFloat16), "owner");  // as much, but wider
  EXPECT_EQ(scatter_of({0, 1, 0, 1}, kMany), "owner");
  EXPECT_EQ(scatter_of({0, 1, 2, 3}, kMany), "owner");
}

TEST(AlgorithmListTest, EveryOperationHasOneForEveryCall) {
  auto failure = Failure::Make(1).value();
  LinkMesh mesh({}, failure, Waiter(*failure, nullptr, 1));
  Group group{.rank = 0, .size = 200, .mesh = mesh, .window = nullptr, .leaves = 0};
  for (Operation operation : {Operation::kAllReduce, Operation::kReduceScatter,
                              Operation::kAllGather, Operation::kBroadcast, Operation::kGather,
                              Operation::kScatter, Operation::kAllToAll, Operation::kBarrier}) {
    Call call{operation};
    call.count = size_t{1} << 30;
    EXPECT_EQ(ChooseAlgorithm(group, call).operation, operation);
  }
}

// What is not named is chosen by what the group is like.
TEST(AlgorithmListTest, ShortSumsTakeFewMessagesWhereRanksWaitForCores) {
  auto failure = Failure::Make(1).value();
  LinkMesh mesh({}, failure, Waiter(*failure, nullptr, true));
  const auto name_of = [&](int ranks, int leaves, bool crowded, size_t count) {
    Group group{.rank = 0,
                .size = ranks,
                .mesh = mesh,
                .window = nullptr,
                .leaves = leaves,
                .splits = TreeSplits(ranks, leaves),
                .crowded = crowded};
    Call call{Operation::kAllReduce};
    call.count = count;
    return ChooseAlgorithm(group, call).name;
  };
  EXPECT_EQ(name_of(4, 4, false, 4096), "exchange");
  EXPECT_EQ(name_of(4, 4, true, 4096), "doubling");
  EXPECT_EQ(name_of(2, 2, true, 4096), "exchange");  // one message either way
  EXPECT_EQ(name_of(3, 3, true, 4096), "exchange");
  EXPECT_EQ(name_of(4, 5, true, 4096), "exchange");  // ((0+1)+2)+3
  EXPECT_EQ(name_of(16, 16, false, 4096), "doubling");
  EXPECT_EQ(name_of(12, 12, false, 4096), "tree");
  EXPECT_EQ(name_of(4, 4, true, 65536), "halving");
  EXPECT_EQ(name_of(4, 4, false, 65536), "owner");
  EXPECT_EQ(name_of(6, 6, true, 65536), "owner");
  EXPECT_EQ(name_of(4, 4, true, 262144), "owner");
}

}  // namespace
}  // namespace lepton::collectives
