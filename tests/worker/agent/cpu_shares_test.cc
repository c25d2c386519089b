#include "worker/cpu_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "worker/child_process.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Two nodes of four CPUs.
std::vector<Cpu> EightCpus() {
  std::vector<Cpu> cpus;
  for (int id = 0; id < 8; ++id) cpus.push_back({id, id / 4});
  return cpus;
}

TEST(CpuShares, AreNeighboursOfOneNodeAndFreeAgain) {
  const TempFolder folder;
  const CpuShares shares(EightCpus(), folder.path() / "cpus");
  auto first = shares.Take(3);
  EXPECT_THAT(first->cpus, ElementsAre(0, 1, 2));
  EXPECT_EQ(first->node, 0);
  // Node 0 has one left.
  const auto second = shares.Take(2);
  EXPECT_THAT(second->cpus, ElementsAre(4, 5));
  EXPECT_EQ(second->node, 1);
  // Two fit into no more than what is left of node 1; three fit into no node.
  const auto third = shares.Take(3);
  EXPECT_THAT(third->cpus, ElementsAre(3, 6, 7));
  EXPECT_EQ(third->node, -1);
  EXPECT_THAT(shares.Take(1)->cpus, IsEmpty());
  first.reset();
  EXPECT_THAT(shares.Take(2)->cpus, ElementsAre(0, 1));
}

TEST(CpuShares, AreAgreedOnByAllWorkersOfAMachine) {
  const TempFolder folder;
  const CpuShares mine(EightCpus(), folder.path() / "cpus"),
      yours(EightCpus(), folder.path() / "cpus");
  const auto a = mine.Take(4), b = yours.Take(4);
  EXPECT_THAT(a->cpus, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(b->cpus, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(mine.Take(2)->cpus, IsEmpty());
}

TEST(CpuShares, OfOneSlotAreAllOfANode) {
  const TempFolder folder;
  const CpuShares shares(EightCpus(), folder.path() / "cpus");
  std::vector<std::shared_ptr<const CpuShare>> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(shares.Take(1));
    EXPECT_THAT(held.back()->cpus, ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(held.back()->node, 0);
  }
  held.push_back(shares.Take(1));
  EXPECT_THAT(held.back()->cpus, ElementsAre(4, 5, 6, 7));
  // With one memory there is nothing to choose.
  const CpuShares small({{0, 0}, {1, 0}}, folder.path() / "small");
  EXPECT_THAT(small.Take(1)->cpus, IsEmpty());
  EXPECT_EQ(small.Take(1)->node, -1);
}

TEST(CpuShares, AreNotTakenFromAFolderThatIsNotOurs) {
  const TempFolder folder;
  std::filesystem::create_directory_symlink("/", folder.path() / "cpus");
  const CpuShares shares(EightCpus(), folder.path() / "cpus");
  EXPECT_THAT(shares.Take(2)->cpus, IsEmpty());
}

TEST(CpuShares, SeeNodesAsHwlocDoes) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  for (const int cpu : {0, 1, 2, 5}) CPU_SET(cpu, &allowed);
  ::setenv("HWLOC_SYNTHETIC", "numa:2 core:2 pu:2", 1);
  const std::vector<Cpu> cpus = ReadCpus(allowed);
  ::unsetenv("HWLOC_SYNTHETIC");
  EXPECT_THAT(cpus, ElementsAre(Cpu{0, 0}, Cpu{1, 0}, Cpu{2, 0}, Cpu{5, 1}));
  EXPECT_THAT(UsableCpus(), testing::Not(IsEmpty()));
}

TEST(CpuShares, HoldForAChild) {
  const int cpu = UsableCpus().back().id;
  ChildProcess::Command command{
      .arguments = {"/bin/grep", "Cpus_allowed_list", "/proc/self/status"}};
  command.cpus = {cpu};
  command.memory_node = 0;
  auto child = ChildProcess::Start(command);
  ASSERT_TRUE(child.ok()) << child.status().ToString();
  EXPECT_EQ(child->Reap().status, 0);
  char text[128] = {};
  ASSERT_GT(read(child->output(0).get(), text, sizeof(text) - 1), 0);
  EXPECT_EQ(std::string(text), "Cpus_allowed_list:\t" + std::to_string(cpu) + "\n");
}

}  // namespace
}  // namespace lepton::worker
