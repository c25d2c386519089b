#include "runtime/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

namespace lepton {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(WriteFileAtomic, ReplacesWholeFilesAndLeavesNoTemporary) {
  TempFolder folder;
  const fs::path path = folder.path() / "key";
  ASSERT_TRUE(WriteFileAtomic(path, "old", 0600).ok());
  ASSERT_TRUE(WriteFileAtomic(path, "new", 0600).ok());
  EXPECT_EQ(*ReadFile(path), "new");
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

// A process that was killed leaves them, and in a container the next one has its number.
TEST(WriteFileAtomic, LeftOverTemporariesAreNotInItsWay) {
  TempFolder folder;
  const fs::path path = folder.path() / "key";
  for (int i = 0; i < 100; ++i) {
    std::ofstream(path.string() + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(i))
        << "left";
  }
  ASSERT_TRUE(WriteFileAtomic(path, "new", 0600).ok());
  EXPECT_EQ(*ReadFile(path), "new");
}

TEST(WriteFileAtomic, AFailedWriteKeepsTheOldFile) {
  TempFolder folder;
  const fs::path path = folder.path() / "folder";
  ASSERT_TRUE(MakeFolders(path / "inside").ok());
  EXPECT_FALSE(WriteFileAtomic(path, "bytes").ok());  // a folder is in the way
  EXPECT_TRUE(fs::is_directory(path / "inside"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(ReadFile, RefusesWhatIsTooLargeMissingOrAFolder) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder.path() / "a", "12345").ok());
  EXPECT_EQ(ReadFile(folder.path() / "a", 4).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile(folder.path() / "b").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadFile(folder.path()).status().code(), StatusCode::kInvalidArgument);
}

TEST(TempFolder, SaysWhyThereIsNone) {
  const char* before = std::getenv("TMPDIR");
  const std::string was = before != nullptr ? before : "";
  ::setenv("TMPDIR", "/nonexistent", 1);
  const TempFolder folder("x");
  before != nullptr ? ::setenv("TMPDIR", was.c_str(), 1) : ::unsetenv("TMPDIR");
  EXPECT_EQ(folder.path(), "");
  EXPECT_EQ(folder.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(folder.status().message(), HasSubstr("TMPDIR: /nonexistent/x."));
  EXPECT_TRUE(TempFolder().status().ok());
}

TEST(FileLock, ASecondProcessIsRefusedAndToldWhoHoldsIt) {
  TempFolder folder;
  const fs::path path = folder.path() / "LOCK";
  int up[2], down[2];
  ASSERT_EQ(::pipe(up), 0);
  ASSERT_EQ(::pipe(down), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const Result<FileLock> held = FileLock::Acquire(path);
    char byte = held.ok() ? 'y' : 'n';
    (void)!::write(up[1], &byte, 1);
    (void)!::read(down[0], &byte, 1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(up[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  const Result<FileLock> second = FileLock::Acquire(path);
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr(std::to_string(child)));
  ASSERT_EQ(::write(down[1], "x", 1), 1);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(FileLock::Acquire(path).ok());  // death releases it
  for (const int fd : {up[0], up[1], down[0], down[1]}) ::close(fd);
}

}  // namespace
}  // namespace lepton
