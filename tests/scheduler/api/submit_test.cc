// Datasets, specs and what is refused before anything is stored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class SubmitTest : public testing::Test {
 protected:
  size_t Jobs() { return cluster_.Get("/v1/jobs").json["items"].size(); }

  TestCluster cluster_;
  const std::string uri_ = cluster_.WriteFile("two.csv", TwoClassCsv(40));
};

TEST_F(SubmitTest, AJobWithoutWorkersIsQueuedWithAReason) {
  const Answer answer = cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_));
  ASSERT_EQ(answer.status, 201) << answer.body;
  EXPECT_EQ(answer.Text("state"), "QUEUED");
  EXPECT_FALSE(answer.Text("reason").empty());
  EXPECT_EQ(answer.Text("kind"), "train");
  const std::string id = answer.Text("id");
  EXPECT_EQ(answer.Header("Location"), "/v1/jobs/" + id);
  const Answer one = cluster_.Get("/v1/jobs/" + id);
  EXPECT_EQ(one.json["spec"]["optimizer"]["name"], "adamw");
  EXPECT_EQ(one.json["spec"]["dataset"]["uri"], uri_);
  EXPECT_EQ(cluster_.Get("/v1/jobs/none").status, 404);
}

TEST(Imports, ThatTakeLongHoldUpNothingElse) {
  std::promise<void> enough;
  const std::shared_future<void> ended = enough.get_future().share();
  std::atomic<int> under_way{0};
  TestCluster cluster([&](CoordinatorOptions& options) {
    options.model_tools.import_onnx = [&, ended](auto&, auto, const auto&, const auto&,
                                                 const auto&) -> Result<api::ImportedModel> {
      ++under_way;
      ended.wait();
      return InvalidArgument("model.onnx: not one");
    };
  });
  const std::string uri = cluster.WriteFile("two.csv", TwoClassCsv(40));
  const Answer job = cluster.Call("POST", "/v1/jobs", TrainSpec(uri));
  ASSERT_EQ(job.status, 201) << job.body;
  std::vector<std::future<Answer>> imports;
  for (int i = 0; i < 6; ++i) {
    imports.push_back(std::async(std::launch::async, [&] {
      return cluster.Call("POST", "/v1/models/m/versions", "no model");
    }));
  }
  EXPECT_TRUE(Eventually([&] { return under_way >= 4; }));
  auto got = std::async(std::launch::async,
                        [&] { return cluster.Get("/v1/jobs/" + job.Text("id")).status; });
  EXPECT_EQ(got.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  enough.set_value();
  EXPECT_EQ(got.get(), 200);
  for (auto& import : imports) EXPECT_EQ(import.get().status, 400);
}

// Of what the file does not say itself.
TEST(OnnxFiles, AreNamedByTheDataAndTheLossOnlyWhereTheJobHasThem) {
  api::ModelNames given;
  TestCluster cluster([&](CoordinatorOptions& options) {
    options.model_tools.import_onnx = [&](auto&, auto, const auto&, const auto&,
                                          const auto& names) -> Result<api::ImportedModel> {
      given = names;
      return InvalidArgument("model.onnx: not one");
    };
  });
  const std::string uri = cluster.WriteFile("two.csv", TwoClassCsv(40));
  const std::string file = cluster.WriteFile("net.onnx", "").substr(std::string("file://").size());
  struct Case {
    std::string kind, loss, wanted;
    size_t classes;
  };
  const std::vector<Case> cases = {
      {"train", "", "cross_entropy", 2},
      {"train", "mse", "mse", 0},
      {"evaluate", "", "", 2},
      {"evaluate", "mse", "mse", 0},
      {"batch", "", "", 0},
      {"batch", "binary_cross_entropy", "binary_cross_entropy", 0},
  };
  for (const Case& c : cases) {
    json spec = {{"kind", c.kind}, {"model", {{"onnx", file}}}, {"dataset", {{"uri", uri}}}};
    if (!c.loss.empty()) spec["loss"] = c.loss;
    given = {.loss = "none yet"};
    EXPECT_EQ(cluster.Call("POST", "/v1/jobs", spec.dump()).status, 400);
    EXPECT_EQ(given.loss, c.wanted) << spec;
    EXPECT_EQ(given.classes.size(), c.classes) << spec;
    EXPECT_EQ(given.features.size(), 2u) << spec;
    EXPECT_EQ(given.trains, c.kind == "train") << spec;
  }
}

TEST_F(SubmitTest, YamlIsAsGoodAsJson) {
  const std::string yaml =
      "kind: train\nname: y\ndataset: {uri: '" + uri_ + "'}\nmodel: {hidden: [4]}\nepochs: 1\n";
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs", yaml).status, 201);
}

TEST_F(SubmitTest, RefusedSpecsNameTheFieldAndLeaveNothing) {
  const std::string text = cluster_.WriteFile("text.csv", "a,b,target\nx,1,p\ny,2,q\nz,3,p\n");
  const std::string ragged = cluster_.WriteFile("ragged.csv", "a,target\n1,p\n2,q,3\n");
  const std::string three = cluster_.WriteFile(
      "three.csv", "a,target\n1,p\n2,q\n3,r\n4,p\n5,q\n6,r\n7,p\n8,q\n9,r\n10,p\n");
  struct Case {
    json more;
    std::string uri;
    int status;
    std::string field, detail;
  };
  const std::vector<Case> cases = {
      {{{"optimizr", {{"lr", 1}}}}, uri_, 400, "optimizr", "optimizer"},
      {{{"optimizer", {{"lr", -1}}}}, uri_, 400, "optimizer.lr", "-1"},
      {{{"epochs", "ten"}}, uri_, 400, "epochs", ""},
      {{{"dataset", {{"label", "species"}}}}, uri_, 400, "dataset.label", "a, b, target"},
      {{{"loss", "binary_cross_entropy"}}, three, 400, "loss", "exactly 2"},
      {json::object(), text, 400, "dataset", "text: a"},
      {json::object(), ragged, 400, "dataset.uri", "line 3"},
      {json::object(), "file:///etc/passwd", 403, "", "outside"},
      {json::object(), uri_ + ".missing", 404, "", "two.csv.missing"},
      {json::object(), "http://example.com/x.csv", 400, "dataset.uri", "file://"},
      {{{"model", {{"from", "nothing@1"}}}}, uri_, 404, "", "model.from"},
      {{{"kind", "distill"}, {"teacher", "nothing"}}, uri_, 404, "", "teacher: "},
  };
  for (const Case& c : cases) {
    const Answer answer = cluster_.Call("POST", "/v1/jobs", TrainSpec(c.uri, c.more));
    EXPECT_EQ(answer.status, c.status) << c.more << c.uri << answer.body;
    EXPECT_EQ(answer.Text("field"), c.field) << answer.body;
    EXPECT_THAT(answer.Text("detail"), HasSubstr(c.detail));
    EXPECT_EQ(answer.Header("Content-Type"), "application/problem+json");
  }
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs", "{").status, 400);
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs", "").status, 400);
  EXPECT_EQ(Jobs(), 0u);
  cluster_.Restart();
  EXPECT_EQ(Jobs(), 0u);
}

TEST_F(SubmitTest, ADryRunPlansAndStoresNothing) {
  const Answer answer = cluster_.Call("POST", "/v1/jobs?dry_run=1", TrainSpec(uri_));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json& plan = answer.json["plan"];
  EXPECT_EQ(plan["dataset"]["rows"], 40);
  EXPECT_EQ(plan["dataset"]["train"], 32);
  // (2 + 1) * 4 + (4 + 1) * 2
  EXPECT_EQ(plan["model"]["parameters"], 22);
  EXPECT_EQ(plan["model"]["gradient_bytes_per_step"], 22 * 4);
  EXPECT_EQ(plan["model"]["training_bytes_per_worker"], 22 * 16);
  EXPECT_EQ(plan["placement"]["enough_free_slots"], false);
  EXPECT_EQ(answer.json["spec"]["batch_size"], 64);
  EXPECT_EQ(Jobs(), 0u);
}

TEST_F(SubmitTest, ADryRunRefusesWhatASubmissionWould) {
  FakeWorker worker(cluster_.coordinator(), "w1");
  worker.Take(wire::ToWorker::kWelcome);
  for (const json& resources :
       {json{{"min_workers", 50}, {"max_workers", 50}}, json{{"device", "cuda"}}}) {
    const std::string spec = TrainSpec(uri_, {{"resources", resources}});
    const Answer dry = cluster_.Call("POST", "/v1/jobs?dry_run=1", spec);
    const Answer wet = cluster_.Call("POST", "/v1/jobs", spec);
    EXPECT_EQ(wet.status, 409) << wet.body;
    EXPECT_EQ(dry.status, wet.status) << dry.body;
    EXPECT_EQ(dry.Text("detail"), wet.Text("detail"));
  }
}

TEST_F(SubmitTest, ADryRunSaysWhatRoundsSendAndHold) {
  const Answer answer = cluster_.Call("POST", "/v1/jobs?dry_run=1",
                                      TrainSpec(uri_, {{"local_sgd", {{"inner_steps", 4}}},
                                                       {"elastic", {{"logical_shards", 3}}},
                                                       {"resources", {{"min_workers", 1}}}}));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json& model = answer.json["plan"]["model"];
  EXPECT_EQ(model["gradient_bytes_per_step"], 22);
  // Weights, gradients, two moments; the shared weights, the outer momentum, three shards' changes.
  EXPECT_EQ(model["training_bytes_per_worker"], 22 * 4 * (4 + 2 + 3));
}

TEST_F(SubmitTest, ARepeatGivesTheFirstJobBackEvenWhenTheFileIsGone) {
  const http::Headers key = {{"Idempotency-Key", "once"}};
  const Answer first = cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_), key);
  ASSERT_EQ(first.status, 201) << first.body;
  std::filesystem::remove(cluster_.folder() / "two.csv");
  const Answer again = cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_), key);
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(again.Text("id"), first.Text("id"));
  cluster_.Restart();
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_), key).Text("id"), first.Text("id"));
  EXPECT_EQ(Jobs(), 1u);
}

TEST_F(SubmitTest, AChosenIdIsKeptAndOtherWorkUnderItIsRefused) {
  const Answer first = cluster_.Call("POST", "/v1/jobs?id=mine", TrainSpec(uri_));
  ASSERT_EQ(first.status, 201) << first.body;
  EXPECT_EQ(first.Text("id"), "mine");
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs?id=mine", TrainSpec(uri_)).status, 200);
  const Answer other = cluster_.Call("POST", "/v1/jobs?id=mine", TrainSpec(uri_, {{"epochs", 7}}));
  EXPECT_EQ(other.status, 409) << other.body;
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs?id=a.b", TrainSpec(uri_)).Text("field"), "id");
}

TEST_F(SubmitTest, JobsAreListedInPagesAndFiltered) {
  for (int i = 0; i < 5; ++i) {
    const json more = {{"labels", {{"n", std::to_string(i)}}}};
    const std::string target = "/v1/jobs?id=job" + std::to_string(i);
    ASSERT_EQ(cluster_.Call("POST", target, TrainSpec(uri_, more)).status, 201);
  }
  ASSERT_EQ(cluster_.Call("DELETE", "/v1/jobs/job3").status, 200);
  std::vector<std::string> ids;
  std::string cursor;
  int pages = 0;
  do {
    const Answer page = cluster_.Get("/v1/jobs?limit=2&cursor=" + cursor);
    ASSERT_EQ(page.status, 200) << page.body;
    for (const json& job : page.json["items"]) ids.push_back(job["id"]);
    cursor = page.Text("next_cursor");
    ++pages;
  } while (!cursor.empty());
  EXPECT_EQ(pages, 3);
  EXPECT_THAT(ids, testing::ElementsAre("job4", "job3", "job2", "job1", "job0"));
  EXPECT_EQ(cluster_.Get("/v1/jobs?state=CANCELLED").json["items"].size(), 1u);
  EXPECT_EQ(cluster_.Get("/v1/jobs?state=QUEUED").json["items"].size(), 4u);
  EXPECT_EQ(cluster_.Get("/v1/jobs?label=n=2").json["items"][0]["id"], "job2");
  EXPECT_EQ(cluster_.Get("/v1/jobs?label=n").json["items"].size(), 5u);
  EXPECT_EQ(cluster_.Get("/v1/jobs?state=ASLEEP").Text("field"), "state");
  EXPECT_EQ(cluster_.Get("/v1/jobs?limit=0").Text("field"), "limit");
}

TEST_F(SubmitTest, DatasetsHaveVersionsAndProfilesAndCanBeTrainedOn) {
  const Answer first = cluster_.Call("POST", "/v1/datasets/two", TwoClassCsv(40));
  ASSERT_EQ(first.status, 201) << first.body;
  EXPECT_EQ(first.json["version"], 1);
  EXPECT_EQ(first.json["rows"], 40);
  ASSERT_EQ(first.json["columns"].size(), 3u);
  EXPECT_EQ(first.json["columns"][2]["classes"], json({"no", "yes"}));
  EXPECT_EQ(cluster_.Call("POST", "/v1/datasets/two", TwoClassCsv(40)).status, 200);
  EXPECT_EQ(cluster_.Call("POST", "/v1/datasets/two", TwoClassCsv(50)).json["version"], 2);
  EXPECT_EQ(cluster_.Get("/v1/datasets/two").json["versions"], json({1, 2}));
  EXPECT_EQ(cluster_.Get("/v1/datasets/two/versions/1").json["rows"], 40);
  const Answer profile = cluster_.Get("/v1/datasets/two/versions/2/profile");
  EXPECT_EQ(profile.json["rows"], 50);
  EXPECT_EQ(profile.json["columns"].size(), 3u);
  EXPECT_EQ(cluster_.Get("/v1/datasets/two/versions/9").status, 404);
  EXPECT_EQ(cluster_.Get("/v1/datasets/other").status, 404);

  json spec = json::parse(TrainSpec(""));
  spec["dataset"] = {{"name", "two@1"}};
  const Answer job = cluster_.Call("POST", "/v1/jobs", spec.dump());
  EXPECT_EQ(job.status, 201) << job.body;
  spec["dataset"] = {{"name", "two@7"}};
  EXPECT_THAT(cluster_.Call("POST", "/v1/jobs", spec.dump()).Text("detail"),
              HasSubstr("dataset.name"));
}

TEST_F(SubmitTest, ABadCsvIsRefusedWithItsLine) {
  const Answer answer = cluster_.Call("POST", "/v1/datasets/bad", "a,b\n1,2\n3\n");
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.Text("detail"), HasSubstr("line 3"));
  EXPECT_EQ(cluster_.Call("POST", "/v1/datasets/bad%20name", TwoClassCsv(4)).status, 400);
  EXPECT_TRUE(cluster_.Get("/v1/datasets").json["items"].empty());
}

TEST_F(SubmitTest, WhatWasAcknowledgedIsThereAfterARestart) {
  const Answer job = cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_));
  ASSERT_EQ(cluster_.Call("POST", "/v1/datasets/two", TwoClassCsv(40)).status, 201);
  cluster_.Restart();
  EXPECT_EQ(cluster_.Get("/v1/jobs/" + job.Text("id")).Text("state"), "QUEUED");
  EXPECT_EQ(cluster_.Get("/v1/datasets/two/versions/1").json["rows"], 40);
}

}  // namespace
}  // namespace lepton::scheduler
