#include "worker/scratch_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <utime.h>

#include <ctime>

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;

TEST(ScratchFolder, WhatAKilledWorkerLeftIsDeletedAndNoOthers) {
  TempFolder root;
  char here[256] = {};
  ASSERT_EQ(::gethostname(here, sizeof here - 1), 0);
  const auto make = [&](const std::string& name, bool lock, const std::string& host = "") {
    const fs::path folder = root.path() / name;
    fs::create_directories(folder / "objects");
    EXPECT_TRUE(WriteFileAtomic(folder / "HOST", host.empty() ? here : host).ok());
    if (!lock) return folder;
    EXPECT_TRUE(WriteFileAtomic(folder / "LOCK", "1").ok());
    const utimbuf old = {std::time(nullptr) - 100, std::time(nullptr) - 100};
    EXPECT_EQ(::utime((folder / "LOCK").c_str(), &old), 0);
    return folder;
  };
  const fs::path left = make("lepton-worker.aaaaaa", true);
  const fs::path unlocked = make("lepton-worker.bbbbbb", false);
  const fs::path another = make("lepton-other.cccccc", true);
  const fs::path elsewhere = make("lepton-worker.ffffff", true, "another-host");
  const fs::path young = make("lepton-worker.dddddd", true);
  ::utime((young / "LOCK").c_str(), nullptr);
  const fs::path lives = make("lepton-worker.eeeeee", true);
  auto lock = FileLock::Acquire(lives / "LOCK");
  ASSERT_TRUE(lock.ok());
  const utimbuf old = {std::time(nullptr) - 100, std::time(nullptr) - 100};
  ASSERT_EQ(::utime((lives / "LOCK").c_str(), &old), 0);

  EXPECT_EQ(RemoveAbandoned(root.path()), 1u);
  EXPECT_FALSE(fs::exists(left));
  for (const fs::path& kept : {unlocked, another, elsewhere, young, lives})
    EXPECT_TRUE(fs::exists(kept));

  const auto scratch = ScratchFolder::Make();
  ASSERT_TRUE(scratch.ok()) << scratch.status().ToString();
  EXPECT_FALSE(FileLock::Acquire((*scratch)->path() / "LOCK").ok());
}

}  // namespace
}  // namespace lepton::worker
