#include "worker/data/derived_file.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "tests/storage/status_matchers.h"

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;

class DerivedFilesTest : public ::testing::Test {
 protected:
  DerivedFilesTest() : objects_(storage::ObjectStore::Open(folder_.path()).value()) {}
  DerivedFiles Files(uint64_t budget = uint64_t{1} << 30) {
    return DerivedFiles(
        *objects_, [this] { return stop_.load(); }, budget);
  }
  static DerivedFiles::Make Writing(const std::string& bytes, std::atomic<int>* calls = nullptr) {
    return [=](int fd) {
      if (calls != nullptr) ++*calls;
      return WriteAll(fd, bytes);
    };
  }
  size_t Count() {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator(folder_.path() / "derived")) {
      count += !entry.path().has_extension();
    }
    return count;
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> objects_;
  std::atomic<bool> stop_ = false;
};

TEST_F(DerivedFilesTest, AFileIsMadeOnceForItsRecipe) {
  std::atomic<int> calls = 0;
  DerivedFiles files = Files();
  const auto first = files.Open("one", Writing("bytes", &calls));
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ((*first)->bytes(), "bytes");
  EXPECT_EQ(Files().Open("one", Writing("others", &calls)).value()->bytes(), "bytes");
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(files.Open("two", Writing("others", &calls)).value()->bytes(), "others");
}

TEST_F(DerivedFilesTest, AFileThatCouldNotBeMadeLeavesNothing) {
  DerivedFiles files = Files();
  const auto failed = files.Open("one", [](int fd) {
    EXPECT_TRUE(WriteAll(fd, "half").ok());
    return InvalidArgument("row 7: bad");
  });
  EXPECT_THAT(failed, Fails(StatusCode::kInvalidArgument, "row 7: bad"));
  EXPECT_EQ(Count(), 0u);
  EXPECT_EQ(files.Open("one", Writing("whole")).value()->bytes(), "whole");
}

TEST_F(DerivedFilesTest, RanksThatNeedTheSameFileWaitForTheOneThatMakesIt) {
  std::atomic<int> calls = 0;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&] {
      const auto file = Files().Open("shared", [&](int fd) {
        ++calls;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return WriteAll(fd, "made once");
      });
      ASSERT_THAT(file, IsOk());
      EXPECT_EQ((*file)->bytes(), "made once");
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(calls, 1);
}

TEST_F(DerivedFilesTest, AWaitEndsWhenTheTaskIsToStop) {
  std::atomic<bool> started = false, release = false;
  std::thread maker([&] {
    (void)Files().Open("slow", [&](int) {
      started = true;
      while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return Status::Ok();
    });
  });
  while (!started) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stop_ = true;
  EXPECT_THAT(Files().Open("slow", Writing("")), Fails(StatusCode::kCancelled, "stopped"));
  release = true;
  maker.join();
}

TEST_F(DerivedFilesTest, TheLeastRecentlyUsedGoWhenThereAreTooMany) {
  const std::string bytes(1000, 'x');
  DerivedFiles files = Files(2500);
  const auto kept = files.Open("a", Writing(bytes));
  ASSERT_THAT(kept, IsOk());
  ASSERT_THAT(files.Open("b", Writing(bytes)), IsOk());
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_THAT(files.Open("a", Writing("not made")), IsOk());
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_THAT(files.Open("c", Writing(bytes)), IsOk());
  EXPECT_EQ(Count(), 2u);
  EXPECT_EQ(files.Open("a", Writing("made again")).value()->bytes(), bytes);
  EXPECT_EQ(files.Open("b", Writing("made again")).value()->bytes(), "made again");
  ASSERT_THAT(files.Open("huge", Writing(std::string(5000, 'y'))), IsOk());
  EXPECT_EQ(Count(), 1u);
  EXPECT_EQ((*kept)->bytes(), bytes) << "a mapped file stays readable";
}

}  // namespace
}  // namespace lepton::worker
