#include "scheduler/api/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/file.h"

namespace lepton::api {
namespace {

class KeyStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = storage::MetadataStore::Open(folder_.path() / "metadata");
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = *std::move(store);
    Load();
  }
  void Load() {
    auto keys = KeyStore::Open(*store_, clock_);
    ASSERT_TRUE(keys.ok()) << keys.status().ToString();
    keys_ = *std::move(keys);
  }
  KeyStore::Created Make(const std::set<Scope>& scopes, Duration ttl = Duration(0)) {
    auto created = keys_->Create("test", scopes, ttl);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    return *std::move(created);
  }

  TempFolder folder_;
  ManualClock clock_;
  std::unique_ptr<storage::MetadataStore> store_;
  std::unique_ptr<KeyStore> keys_;
};

TEST_F(KeyStoreTest, AKeyIsRecognisedAlsoAfterARestart) {
  const auto created = Make({Scope::kSubmit});
  EXPECT_THAT(created.secret, testing::MatchesRegex("lk_[0-9a-f]{8}_[0-9a-f]{64}"));
  Load();
  const auto checked = keys_->Check(created.secret);
  ASSERT_TRUE(checked.ok());
  EXPECT_EQ(checked->id, created.key.id);
  EXPECT_THAT(checked->scopes, testing::ElementsAre(Scope::kSubmit));
}

TEST_F(KeyStoreTest, OnlyAHashOfTheSecretIsStored) {
  const auto created = Make({Scope::kRead});
  const std::string secret = created.secret.substr(created.secret.rfind('_') + 1);
  const auto rows = store_->Scan("keys", "", "", 10);
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].second.find(secret), std::string::npos);
  EXPECT_EQ(KeyView(created.key).dump().find(created.key.hash), std::string::npos);
}

TEST_F(KeyStoreTest, AnythingButTheExactKeyIsRefusedInTheSameWords) {
  const std::string good = Make({Scope::kRead}).secret;
  std::string flipped = good;
  flipped.back() = flipped.back() == '0' ? '1' : '0';
  std::string other_id = good;
  other_id[3] = other_id[3] == '0' ? '1' : '0';
  for (const std::string& bad : {flipped, other_id, good + "0", good.substr(1), std::string(),
                                 std::string("lk_"), std::string(good.size(), '_')}) {
    const auto checked = keys_->Check(bad);
    ASSERT_FALSE(checked.ok()) << bad;
    EXPECT_EQ(checked.status(), PermissionDenied("the API key is not valid"));
  }
}

TEST_F(KeyStoreTest, AKeyEndsWithItsTtl) {
  const std::string secret = Make({Scope::kRead}, std::chrono::minutes(1)).secret;
  clock_.Advance(std::chrono::seconds(59));
  EXPECT_TRUE(keys_->Check(secret).ok());
  clock_.Advance(std::chrono::seconds(1));
  EXPECT_FALSE(keys_->Check(secret).ok());
}

TEST_F(KeyStoreTest, ARevokedKeyIsGoneForGood) {
  const auto created = Make({Scope::kRead});
  EXPECT_TRUE(keys_->Revoke(created.key.id).ok());
  EXPECT_FALSE(keys_->Check(created.secret).ok());
  EXPECT_EQ(keys_->Revoke(created.key.id).code(), StatusCode::kNotFound);
  Load();
  EXPECT_TRUE(keys_->empty());
}

TEST_F(KeyStoreTest, AKeyNeedsAScopeAndNoNegativeTtl) {
  EXPECT_EQ(keys_->Create("x", {}, Duration(0)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(keys_->Create("x", {Scope::kRead}, Duration(-1)).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ScopeTest, WhatEachScopeAllows) {
  struct Case {
    Scope held, needed;
    bool allowed;
  };
  for (const Case& c : std::vector<Case>{{Scope::kAdmin, Scope::kAdmin, true},
                                         {Scope::kAdmin, Scope::kPredict, true},
                                         {Scope::kAdmin, Scope::kRead, true},
                                         {Scope::kSubmit, Scope::kSubmit, true},
                                         {Scope::kSubmit, Scope::kRead, true},
                                         {Scope::kSubmit, Scope::kPredict, false},
                                         {Scope::kSubmit, Scope::kAdmin, false},
                                         {Scope::kPredict, Scope::kPredict, true},
                                         {Scope::kPredict, Scope::kRead, false},
                                         {Scope::kRead, Scope::kRead, true},
                                         {Scope::kRead, Scope::kSubmit, false},
                                         {Scope::kRead, Scope::kNone, true}}) {
    ApiKey key;
    key.scopes = {c.held};
    EXPECT_EQ(Allows(key, c.needed), c.allowed)
        << ScopeName(c.held) << " for " << ScopeName(c.needed);
  }
  EXPECT_FALSE(ParseScope("none").ok());
  EXPECT_FALSE(ParseScope("root").ok());
  EXPECT_EQ(*ParseScope("predict"), Scope::kPredict);
}

}  // namespace
}  // namespace lepton::api
