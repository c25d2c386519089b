// Where a worker was started from.
#include "worker/agent.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace lepton::worker {
namespace {

TEST(LauncherTest, PlacesComeFromTheLaunchersEnvironment) {
  const char* const names[] = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE",
                               "SLURM_PROCID",         "SLURM_STEP_ID",        "SLURM_JOB_ID",
                               "SLURM_STEP_NUM_TASKS"};
  for (const char* name : names) unsetenv(name);
  EXPECT_EQ(DetectLauncher().name, "none");
  setenv("SLURM_PROCID", "1", 1);
  setenv("SLURM_STEP_ID", "0", 1);
  setenv("SLURM_JOB_ID", "77", 1);
  setenv("SLURM_STEP_NUM_TASKS", "2", 1);
  LauncherInfo info = DetectLauncher();
  EXPECT_EQ(info.name, "srun");
  EXPECT_EQ(info.rank, 1u);
  EXPECT_EQ(info.size, 2u);
  EXPECT_EQ(info.world, "77.0");
  setenv("OMPI_COMM_WORLD_RANK", "3", 1);
  setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
  setenv("PMIX_NAMESPACE", "ns@1", 1);
  info = DetectLauncher();
  EXPECT_EQ(info.name, "mpirun");
  EXPECT_EQ(info.rank, 3u);
  EXPECT_EQ(info.size, 4u);
  EXPECT_EQ(info.world, "ns@1");
  setenv("OMPI_COMM_WORLD_RANK", "three", 1);
  EXPECT_EQ(DetectLauncher().name, "srun");
  for (const char* name : names) unsetenv(name);
}

}  // namespace
}  // namespace lepton::worker
