#include "scheduler/api/file_uri.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "runtime/base/file.h"

namespace lepton::api {
namespace {

namespace fs = std::filesystem;

class FileUriTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_ / "sub");
    fs::create_directories(folder_.path() / "outside");
    ASSERT_TRUE(WriteFileAtomic(root_ / "in side.csv", "inside").ok());
    ASSERT_TRUE(WriteFileAtomic(folder_.path() / "outside" / "secret", "secret").ok());
    // A neighbour whose name starts like the root's.
    fs::create_directories(folder_.path() / "root2");
    ASSERT_TRUE(WriteFileAtomic(folder_.path() / "root2" / "x", "x").ok());
  }
  Result<std::string> Read(const std::string& uri, size_t limit = 1000) {
    return ReadConfinedFile("dataset.uri", uri, {{root_}}, limit);
  }
  std::string Uri(const fs::path& path) { return "file://" + path.string(); }

  TempFolder folder_;
  const fs::path root_ = folder_.path() / "root";
};

TEST_F(FileUriTest, ReadsInsideTheRoot) {
  EXPECT_EQ(*Read(Uri(root_ / "in%20side.csv")), "inside");
  EXPECT_EQ(*Read("file://localhost" + (root_ / "in%20side.csv").string()), "inside");
  EXPECT_EQ(*Read(Uri(root_ / "sub" / ".." / "in%20side.csv")), "inside");
}

TEST_F(FileUriTest, ALinkInsideMayPointInside) {
  fs::create_symlink(root_ / "in side.csv", root_ / "sub" / "link");
  EXPECT_EQ(*Read(Uri(root_ / "sub" / "link")), "inside");
}

TEST_F(FileUriTest, NothingOutsideIsReadAndNothingIsToldAboutIt) {
  fs::create_symlink(folder_.path() / "outside" / "secret", root_ / "link");
  fs::create_symlink(folder_.path() / "outside", root_ / "folder");
  const fs::path outside = folder_.path() / "outside";
  for (const std::string& uri :
       {Uri(outside / "secret"), Uri(outside / "missing"), Uri(root_ / ".." / "outside" / "secret"),
        Uri(root_ / "%2e%2e" / "outside" / "secret"), Uri(root_ / "link"),
        Uri(root_ / "folder" / "secret"), Uri(root_ / "folder" / "missing"),
        Uri(folder_.path() / "root2" / "x"), std::string("file:///etc/passwd")}) {
    const auto read = Read(uri);
    ASSERT_FALSE(read.ok()) << uri;
    EXPECT_EQ(read.status().code(), StatusCode::kPermissionDenied) << read.status().ToString();
    EXPECT_THAT(read.status().message(), testing::StartsWith("dataset.uri: "));
  }
}

TEST_F(FileUriTest, TheFolderThatIsTakenOutIsReadOnlyWhereItIsNamed) {
  const fs::path data = root_ / "data";
  fs::create_directories(data / "files");
  ASSERT_TRUE(WriteFileAtomic(data / "server.key", "secret").ok());
  ASSERT_TRUE(WriteFileAtomic(data / "files" / "x", "given").ok());
  fs::create_symlink(data / "server.key", root_ / "link");
  const auto code = [&](const FileRoots& roots, const fs::path& path) {
    return ReadConfinedFile("dataset.uri", Uri(path), roots, 1000).status().code();
  };
  for (const FileRoots& roots : {FileRoots{{root_}, data}, FileRoots{{data}, data},
                                 FileRoots{{root_, data / "files"}, data}}) {
    EXPECT_EQ(code(roots, data / "server.key"), StatusCode::kPermissionDenied);
    EXPECT_EQ(code(roots, data / "missing"), StatusCode::kPermissionDenied);
    EXPECT_EQ(code(roots, root_ / "link"), StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(code({{root_}, data}, data / "files" / "x"), StatusCode::kPermissionDenied);
  EXPECT_EQ(code({{root_, data / "files"}, data}, data / "files" / "x"), StatusCode::kOk);
  EXPECT_EQ(code({{root_}, data}, root_ / "in%20side.csv"), StatusCode::kOk);
}

TEST_F(FileUriTest, WhatIsNoRegularFileIsRefused) {
  EXPECT_EQ(Read(Uri(root_ / "missing")).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Read(Uri(root_ / "sub")).status().code(), StatusCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo((root_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(Read(Uri(root_ / "fifo")).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Read(Uri(root_ / "in%20side.csv"), 3).status().code(), StatusCode::kResourceExhausted);
}

TEST_F(FileUriTest, FoldersAreConfinedLikeFiles) {
  const auto inside = OpenConfined("dataset.uri", Uri(root_ / "sub"), {{root_}});
  ASSERT_TRUE(inside.ok()) << inside.status().ToString();
  EXPECT_TRUE(inside->folder);
  fs::create_symlink(folder_.path() / "outside", root_ / "leads-out");
  EXPECT_EQ(OpenConfined("dataset.uri", Uri(root_ / "leads-out"), {{root_}}).status().code(),
            StatusCode::kPermissionDenied);
  const auto tokenizer = ReadConfinedFile("dataset.tokenizer", "file:///etc/passwd", {{root_}}, 10);
  EXPECT_THAT(tokenizer.status().message(), testing::StartsWith("dataset.tokenizer: "));
}

TEST_F(FileUriTest, OnlyAbsoluteFileUrisOfThisHost) {
  for (const std::string& uri :
       {std::string("/etc/passwd"), std::string("http://host/x"), std::string("file:x"),
        std::string("file://other/x"), std::string("file://"), std::string("file:///a%2"),
        std::string("file:///a%zz"), std::string("file:///a%00b")}) {
    EXPECT_EQ(PathOfFileUri("dataset.uri", uri).status().code(), StatusCode::kInvalidArgument)
        << uri;
  }
}

}  // namespace
}  // namespace lepton::api
