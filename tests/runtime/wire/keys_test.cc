#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "runtime/base/file.h"
#include "runtime/wire/channel.h"

namespace lepton::wire {
namespace {

using std::filesystem::path;

mode_t ModeOf(const path& file) {
  struct stat info;
  EXPECT_EQ(stat(file.c_str(), &info), 0) << file;
  return info.st_mode & 0777;
}

TEST(KeysTest, FirstStartMakesBothFilesPrivate) {
  TempFolder folder;
  const auto key = LoadOrMakeServerKey(folder.path());
  ASSERT_TRUE(key.ok()) << key.status().ToString();
  EXPECT_EQ(ModeOf(folder.path() / "server.key"), 0600u);
  EXPECT_EQ(ModeOf(folder.path() / "pool.key"), 0600u);

  const auto pool = LoadPoolKey(folder.path() / "pool.key");
  ASSERT_TRUE(pool.ok()) << pool.status().ToString();
  EXPECT_EQ(pool->server_public, key->server.public_key);
  EXPECT_EQ(pool->worker.public_key, key->worker_public);
}

TEST(KeysTest, LaterStartsKeepTheKeys) {
  TempFolder folder;
  const auto first = LoadOrMakeServerKey(folder.path());
  const auto second = LoadOrMakeServerKey(folder.path());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->server.secret_key, second->server.secret_key);
  EXPECT_EQ(first->worker_public, second->worker_public);
}

TEST(KeysTest, KeysThatOthersCanReadAreRefused) {
  TempFolder folder;
  ASSERT_TRUE(LoadOrMakeServerKey(folder.path()).ok());
  for (const char* name : {"server.key", "pool.key"}) {
    for (const mode_t mode : {0640, 0604, 0620, 0666}) {
      ASSERT_EQ(chmod((folder.path() / name).c_str(), mode), 0);
      const auto key = LoadOrMakeServerKey(folder.path());
      EXPECT_EQ(key.status().code(), StatusCode::kPermissionDenied) << name << " " << mode;
      EXPECT_NE(key.status().message().find(name), std::string::npos) << key.status().message();
    }
    ASSERT_EQ(chmod((folder.path() / name).c_str(), 0600), 0);
  }
  EXPECT_TRUE(LoadOrMakeServerKey(folder.path()).ok());
}

TEST(KeysTest, APoolKeyFromACrashedFirstStartIsReplaced) {
  TempFolder folder;
  const PoolKey orphan{MakeCurveKeyPair().public_key, MakeCurveKeyPair()};
  ASSERT_TRUE(WriteFileAtomic(folder.path() / "pool.key", PoolKeyToJson(orphan), 0600).ok());
  const auto key = LoadOrMakeServerKey(folder.path());
  ASSERT_TRUE(key.ok()) << key.status().ToString();
  EXPECT_EQ(LoadPoolKey(folder.path() / "pool.key")->server_public, key->server.public_key);
}

TEST(KeysTest, ALostOrForeignPoolKeyIsAnError) {
  TempFolder folder;
  ASSERT_TRUE(LoadOrMakeServerKey(folder.path()).ok());
  const PoolKey foreign{MakeCurveKeyPair().public_key, MakeCurveKeyPair()};
  ASSERT_TRUE(WriteFileAtomic(folder.path() / "pool.key", PoolKeyToJson(foreign), 0600).ok());
  EXPECT_EQ(LoadOrMakeServerKey(folder.path()).status().code(), StatusCode::kFailedPrecondition);
  std::filesystem::remove(folder.path() / "pool.key");
  EXPECT_EQ(LoadOrMakeServerKey(folder.path()).status().code(), StatusCode::kFailedPrecondition);
}

TEST(KeysTest, BadKeyTextNamesTheField) {
  const PoolKey good{MakeCurveKeyPair().public_key, MakeCurveKeyPair()};
  ASSERT_TRUE(PoolKeyFromJson(PoolKeyToJson(good)).ok());
  PoolKey mixed = good;
  mixed.worker.secret_key = MakeCurveKeyPair().secret_key;
  const std::pair<std::string, std::string> cases[] = {
      {"", "JSON"},
      {"[]", "JSON"},
      {"{}", "server_public"},
      {R"({"server_public": 7})", "server_public"},
      {R"({"server_public": "short"})", "server_public"},
      {PoolKeyToJson(mixed), "worker_secret"},
  };
  for (const auto& [text, expected] : cases) {
    const auto key = PoolKeyFromJson(text);
    EXPECT_EQ(key.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_NE(key.status().message().find(expected), std::string::npos)
        << text << " -> " << key.status().message();
  }
}

}  // namespace
}  // namespace lepton::wire
