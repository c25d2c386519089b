// Every list comes in pages that together are the whole, once and in order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;

class PagingTest : public testing::Test {
 protected:
  // The items of all pages of `limit`, which must be full but for the last.
  json AllPages(const std::string& list, size_t limit) {
    json all = json::array();
    std::string cursor;
    do {
      const Answer page = cluster_.Get(list + "?limit=" + std::to_string(limit) +
                                       (cursor.empty() ? "" : "&cursor=" + cursor));
      EXPECT_EQ(page.status, 200) << list << ": " << page.body;
      if (page.status != 200) return all;
      const json& items = page.json["items"];
      cursor = page.Text("next_cursor");
      EXPECT_TRUE(cursor.empty() ? items.size() <= limit : items.size() == limit) << list;
      for (const json& item : items) all.push_back(item);
    } while (!cursor.empty());
    return all;
  }
  std::vector<std::string> Names(const json& items, const char* field) {
    std::vector<std::string> names;
    for (const json& item : items) {
      names.push_back(item[field].is_string() ? item[field].get<std::string>()
                                              : item[field].dump());
    }
    return names;
  }
  void ExpectPages(const std::string& list, const char* key, size_t count) {
    const json whole = AllPages(list, 1000);
    EXPECT_EQ(whole.size(), count) << list;
    for (const size_t limit : {1, 2, 3}) {
      EXPECT_EQ(Names(AllPages(list, limit), key), Names(whole, key)) << list << " by " << limit;
    }
  }

  TestCluster cluster_;
};

TEST_F(PagingTest, ListsByNameAndByNumberAreWholeInPagesOfAnySize) {
  for (const char* name : {"e", "a", "c", "b", "d"}) {
    const auto added = cluster_.Call("POST", std::string("/v1/datasets/") + name, TwoClassCsv(20));
    ASSERT_EQ(added.status, 201) << added.body;
  }
  for (int rows = 21; rows < 26; ++rows) {
    ASSERT_EQ(cluster_.Call("POST", "/v1/datasets/a", TwoClassCsv(rows)).status, 201);
  }
  ExpectPages("/v1/datasets", "name", 5);
  ExpectPages("/v1/datasets/a/versions", "version", 6);

  std::vector<std::unique_ptr<FakeWorker>> workers;
  for (const char* id : {"w3", "w1", "w10", "w2"}) {
    workers.push_back(std::make_unique<FakeWorker>(cluster_.coordinator(), id));
  }
  ASSERT_TRUE(Eventually([&] { return cluster_.Get("/v1/workers").json["items"].size() == 4; }));
  ExpectPages("/v1/workers", "id", 4);
  ExpectPages("/v1/models", "name", 0);
  ExpectPages("/v1/deployments", "name", 0);
}

TEST_F(PagingTest, TrialsAndCheckpointsArePagedByNumber) {
  FakeWorker worker(cluster_.coordinator(), "w", 8);
  worker.Take(wire::ToWorker::kWelcome);
  json template_spec = json::parse(TrainSpec(cluster_.WriteFile("d.csv", TwoClassCsv(40))));
  template_spec["kind"] = "tune";
  template_spec["search"] = {
      {"algorithm", "random"}, {"metric", "validation/loss"},
      {"mode", "min"},         {"trials", 7},
      {"max_parallel", 7},     {"space", {{"optimizer.lr", {{"loguniform", {1e-4, 1e-1}}}}}}};
  const Answer job = cluster_.Call("POST", "/v1/jobs", template_spec.dump());
  ASSERT_EQ(job.status, 201) << job.body;
  const std::string trials = "/v1/jobs/" + job.Text("id") + "/trials";
  ASSERT_TRUE(Eventually([&] { return cluster_.Get(trials).json["items"].size() == 7; }));
  ExpectPages(trials, "id", 7);
  ExpectPages("/v1/jobs/" + job.Text("id") + "/checkpoints", "step", 0);
  EXPECT_EQ(cluster_.Get(trials + "?cursor=x").status, 400);
}

TEST_F(PagingTest, WhatIsAddedMeanwhileMovesNothing) {
  for (const char* name : {"b", "d"}) {
    ASSERT_EQ(cluster_.Call("POST", std::string("/v1/datasets/") + name, TwoClassCsv(20)).status,
              201);
  }
  const Answer first = cluster_.Get("/v1/datasets?limit=1");
  EXPECT_EQ(first.Text("next_cursor"), "b");
  for (const char* name : {"a", "c"}) {
    ASSERT_EQ(cluster_.Call("POST", std::string("/v1/datasets/") + name, TwoClassCsv(20)).status,
              201);
  }
  const Answer rest = cluster_.Get("/v1/datasets?cursor=" + first.Text("next_cursor"));
  EXPECT_THAT(Names(rest.json["items"], "name"), testing::ElementsAre("c", "d"));
}

TEST_F(PagingTest, WorkersAreFilteredByState) {
  FakeWorker up(cluster_.coordinator(), "up"), leaving(cluster_.coordinator(), "leaving");
  up.Take(wire::ToWorker::kWelcome);
  leaving.Take(wire::ToWorker::kWelcome);
  ASSERT_EQ(cluster_.Call("POST", "/v1/workers/leaving:drain").status, 200);
  EXPECT_THAT(Names(cluster_.Get("/v1/workers?state=UP").json["items"], "id"),
              testing::ElementsAre("up"));
  EXPECT_THAT(Names(cluster_.Get("/v1/workers?state=DRAINING").json["items"], "id"),
              testing::ElementsAre("leaving"));
  const Answer bad = cluster_.Get("/v1/workers?state=AWAY");
  EXPECT_EQ(bad.status, 400);
  EXPECT_THAT(bad.body, testing::HasSubstr("use UP, DRAINING or LOST"));
}

TEST_F(PagingTest, AMisspeltParameterIsRefusedRatherThanIgnored) {
  const Answer bad = cluster_.Get("/v1/workers?sate=UP");
  EXPECT_EQ(bad.status, 400);
  EXPECT_THAT(bad.body,
              testing::HasSubstr("sate: no such query parameter; use cursor, limit, state"));
  EXPECT_EQ(cluster_.Get("/v1/cluster?x=1").status, 400);
  EXPECT_EQ(cluster_.Get("/v1/datasets?limit=0").status, 400);
  EXPECT_EQ(cluster_.Get("/?anything=1").status, 200) << "pages are not calls";
}

}  // namespace
}  // namespace lepton::scheduler
