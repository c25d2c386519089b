// Shards become one file: in order, and with the part named that is not there or not what it was.
#include "scheduler/loop/shard_files.h"

#include <gtest/gtest.h>

#include <fstream>

#include "runtime/base/file.h"

namespace lepton::scheduler {
namespace {

class JoinObjectsTest : public testing::Test {
 protected:
  void SetUp() override {
    objects_ = std::move(storage::ObjectStore::Open(folder_.path())).value();
    for (const char* text : {"row,label\n0,a\n", "1,b\n", "2,c\n"}) {
      parts_.push_back(objects_->Put(text).value());
    }
  }
  Result<storage::Digest> Join() {
    return JoinObjects(*objects_, parts_, stopping_, &bytes_, &bad_);
  }
  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> objects_;
  std::vector<storage::Digest> parts_;
  std::atomic<bool> stopping_{false};
  uint64_t bytes_ = 0;
  int bad_ = 0;
};

TEST_F(JoinObjectsTest, InOrderAndTheSameNameEachTime) {
  const auto file = Join();
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(objects_->Get(*file).value(), "row,label\n0,a\n1,b\n2,c\n");
  EXPECT_EQ(bytes_, 22u);
  EXPECT_EQ(bad_, -1);
  EXPECT_EQ(Join().value(), *file);
}

TEST(CheckRoom, LeavesTheJournalSome) {
  constexpr uint64_t kMib = uint64_t{1} << 20;
  EXPECT_TRUE(CheckRoom(36 * kMib, 100 * kMib).ok());
  EXPECT_EQ(CheckRoom(37 * kMib, 100 * kMib).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(CheckRoom(0, 10 * kMib).code(), StatusCode::kResourceExhausted);
}

TEST_F(JoinObjectsTest, APartThatIsGoneIsNamed) {
  ASSERT_TRUE(objects_->Remove(parts_[2]).ok());
  EXPECT_EQ(Join().status().code(), StatusCode::kNotFound);
  EXPECT_EQ(bad_, 2);
}

TEST_F(JoinObjectsTest, APartWithOtherBytesIsNamed) {
  const auto path = objects_->PathOf(parts_[1]);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  std::ofstream(path) << "1,x\n";
  EXPECT_EQ(Join().status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(bad_, 1);
}

TEST_F(JoinObjectsTest, ACoordinatorThatEndsLeavesNothingBehind) {
  stopping_ = true;
  EXPECT_EQ(Join().status().code(), StatusCode::kCancelled);
  EXPECT_EQ(objects_->List().value().size(), 3u);
}

}  // namespace
}  // namespace lepton::scheduler
