// Jobs and deployments from submission to their end, with tasks that report what the test says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "runtime/base/hash.h"
#include "storage/models/model_manifest.h"
#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Kind = wire::ToWorker;

class JobRunTest : public testing::Test {
 protected:
  JobRunTest() : worker_(std::make_unique<FakeWorker>(cluster_.coordinator(), "w1", 4)) {
    worker_->Take(Kind::kWelcome);
  }

  // Submits and returns the Start that the worker gets.
  wire::StartTask Start(const json& more = json::object()) {
    const Answer answer = cluster_.Call("POST", "/v1/jobs", TrainSpec(uri_, more));
    EXPECT_EQ(answer.status, 201) << answer.body;
    return worker_->Take(Kind::kStart).start();
  }
  Answer WaitFor(const std::string& job, const std::string& state) {
    return cluster_.Get("/v1/jobs/" + job + "?wait=10s&until=" + state);
  }
  // Uploads a tiny model and finishes the task with it.
  std::string FinishWithModel(const wire::StartTask& start) {
    const std::string weights = "weights of " + start.job_id();
    storage::ModelManifest manifest;
    manifest.model_spec_json = R"({"arch":"mlp","hidden":[4]})";
    manifest.loss = "cross_entropy";
    manifest.precision = "f32";
    manifest.feature_names = {"a", "b"};
    manifest.mean = {0, 0};
    manifest.scale = {1, 1};
    manifest.label_name = "target";
    manifest.classes = {"no", "yes"};
    manifest.weights = Sha256Hex(weights);
    manifest.weights_sha256 = Sha256Hex("digest");
    manifest.parameters = 22;
    manifest.metrics = {{"test/accuracy", 0.75}};
    manifest.job_id = start.job_id();
    manifest.dataset = start.dataset_manifest();
    const std::string text = storage::ToJson(manifest).dump();
    EXPECT_EQ(worker_->Upload(manifest.weights, weights), "");
    EXPECT_EQ(worker_->Upload(Sha256Hex(text), text), "");
    worker_->ReportFinished(start.task_id(), "OK", Sha256Hex(text), {manifest.weights});
    return Sha256Hex(text);
  }
  // A job that registers `name`, run to its end.
  void MakeModel(const std::string& name) {
    const auto start = Start({{"register", name}});
    worker_->ReportStarted(start.task_id());
    FinishWithModel(start);
    ASSERT_EQ(WaitFor(start.job_id(), "SUCCEEDED").Text("state"), "SUCCEEDED");
  }

  TestCluster cluster_;
  const std::string uri_ = cluster_.WriteFile("two.csv", TwoClassCsv(40));
  std::unique_ptr<FakeWorker> worker_;
};

TEST_F(JobRunTest, AJobRunsAndItsModelIsRegistered) {
  const auto start = Start({{"register", "small"}});
  EXPECT_EQ(start.kind(), "train");
  EXPECT_EQ(start.size(), 1u);
  ASSERT_EQ(start.inputs_size(), 2);
  for (const auto& input : start.inputs()) {
    EXPECT_EQ(worker_->Download(input.digest()).size(), input.bytes());
  }
  worker_->ReportStarted(start.task_id());
  EXPECT_EQ(WaitFor(start.job_id(), "RUNNING").Text("state"), "RUNNING");
  worker_->ReportProgress(start.task_id(), 3, {{"train/loss", 0.5}});
  EXPECT_TRUE(Eventually(
      [&] { return cluster_.Get("/v1/jobs/" + start.job_id()).json["progress"]["step"] == 3; }));
  const std::string manifest = FinishWithModel(start);
  const Answer done = WaitFor(start.job_id(), "SUCCEEDED");
  ASSERT_EQ(done.Text("state"), "SUCCEEDED") << done.body;
  EXPECT_EQ(done.json["result"]["model"], "small");
  EXPECT_EQ(done.json["result"]["version"], 1);
  EXPECT_EQ(done.json["result"]["manifest"], manifest);
  EXPECT_EQ(done.json["result"]["weights_sha256"], Sha256Hex("digest"));
  EXPECT_EQ(done.json["metrics"]["test/accuracy"], 0.75);

  const Answer version = cluster_.Get("/v1/models/small/versions/1");
  EXPECT_EQ(version.json["parameters"], 22);
  EXPECT_EQ(version.json["lineage"]["job_id"], start.job_id());
  EXPECT_EQ(version.json["lineage"]["dataset"], uri_);
  EXPECT_EQ(cluster_.Get("/v1/models/small/versions/1/files/weights.safetensors").body,
            "weights of " + start.job_id());
  EXPECT_EQ(cluster_.Get("/v1/models/small/versions/1/files/manifest.json").Text("job_id"),
            start.job_id());
  EXPECT_EQ(cluster_.Get("/v1/models/small/versions/1/files/other").status, 404);
  EXPECT_EQ(cluster_.Call("PUT", "/v1/models/small/aliases/prod", R"({"version":1})").status, 200);
  EXPECT_EQ(cluster_.Get("/v1/models/small").json["aliases"]["prod"], 1);
  EXPECT_EQ(cluster_.Get("/v1/models/small/versions/prod").json["version"], 1);
  EXPECT_EQ(cluster_.Call("PUT", "/v1/models/small/aliases/prod", R"({"version":9})").status, 404);
  EXPECT_EQ(cluster_.Call("PUT", "/v1/models/small/aliases/prod", R"({"version":0})").status, 404);
  EXPECT_EQ(
      cluster_.Call("PUT", "/v1/models/small/aliases/prod", R"({"version":"x"})").Text("field"),
      "version");
  const Answer again = cluster_.Call("POST", "/v1/jobs?dry_run=1",
                                     TrainSpec(uri_, {{"model", {{"from", "small@prod"}}}}));
  EXPECT_EQ(again.status, 200) << again.body;
}

TEST_F(JobRunTest, EventsTellTheStoryOnceInOrderAndResume) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  worker_->ReportFinished(start.task_id());
  WaitFor(start.job_id(), "SUCCEEDED");
  const std::string path = "/v1/jobs/" + start.job_id() + "/events";
  const Answer page = cluster_.Get(path);
  std::vector<std::string> states;
  for (const json& event : page.json["items"]) states.push_back(event["state"]);
  EXPECT_THAT(states, ElementsAre("QUEUED", "STARTING", "RUNNING", "SUCCEEDED"));
  const uint64_t second = page.json["items"][1]["seq"];
  const Answer rest = cluster_.Get(path + "?after=" + std::to_string(second));
  EXPECT_EQ(rest.json["items"].size(), 2u);
  EXPECT_EQ(rest.json["next_after"], page.json["next_after"]);

  const auto all = cluster_.Follow(path + "?follow=1");
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].event, "event");
  EXPECT_EQ(json::parse(all[3].data)["state"], "SUCCEEDED");
  const auto resumed =
      cluster_.Follow(path + "?follow=1", SIZE_MAX, {{"Last-Event-ID", all[1].id}});
  ASSERT_EQ(resumed.size(), 2u);
  EXPECT_EQ(resumed[0].data, all[2].data);
}

TEST_F(JobRunTest, FollowedLogsArriveLiveAndResumeWithoutGapOrRepeat) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  worker_->ReportLog(start.task_id(), {"one", "two"});
  const std::string path = "/v1/jobs/" + start.job_id() + "/logs";
  // The follower is there before the rest of the lines, and ends with the job.
  auto live = std::async(std::launch::async, [&] { return cluster_.Follow(path + "?follow=1"); });
  std::vector<http::SseParser::Event> first;
  ASSERT_TRUE(Eventually([&] { return !cluster_.Get(path).json["items"].empty(); }));
  first = cluster_.Follow(path + "?follow=1", 2);
  worker_->ReportLog(start.task_id(), {"three", "four"});
  worker_->ReportFinished(start.task_id());
  WaitFor(start.job_id(), "SUCCEEDED");

  std::vector<std::string> lines;
  for (const auto& event : live.get()) lines.push_back(json::parse(event.data)["line"]);
  EXPECT_THAT(lines, ElementsAre("one", "two", "three", "four"));
  ASSERT_EQ(first.size(), 2u);
  const auto rest = cluster_.Follow(path + "?follow=1&after=" + first[1].id);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(json::parse(rest[0].data)["line"], "three");
  EXPECT_EQ(cluster_.Get(path + "?after=x").Text("field"), "after");
  EXPECT_EQ(cluster_.Get("/v1/jobs/none/logs").status, 404);
}

// What a slow reader of much has not taken yet is not written yet: it is not cut off for it.
TEST_F(JobRunTest, ALongBacklogOfLogIsFollowedAtTheReadersPace) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  const std::string line(1600, 'x');
  constexpr size_t kRows = 160, kLines = 32;
  for (size_t row = 0; row < kRows; ++row) {
    worker_->ReportLog(start.task_id(), std::vector<std::string>(kLines, line));
  }
  worker_->ReportFinished(start.task_id());
  WaitFor(start.job_id(), "SUCCEEDED");
  http::Client client(*http::ParseUrl(cluster_.coordinator().url()), {});
  http::Request request;
  request.method = "GET";
  request.target = "/v1/jobs/" + start.job_id() + "/logs?follow=1";
  http::SseParser parser;
  size_t lines = 0;
  bool ended = false;
  const Status status = client.CallStreaming(
      request, Deadline::In(std::chrono::seconds(60)), [&](std::string_view bytes) {
        std::this_thread::sleep_for(std::chrono::nanoseconds(bytes.size() * 200));
        for (const auto& event : parser.Feed(bytes)) {
          lines += event.event == "log";
          ended = ended || event.event == "end";
        }
        return !ended;
      });
  EXPECT_TRUE(ended) << status.ToString();
  EXPECT_EQ(lines, kRows * kLines);
}

TEST_F(JobRunTest, MetricPointsArePagedAndALongBacklogIsFollowedWhole) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  constexpr int kSteps = 1500;
  for (int step = 1; step <= kSteps; ++step) {
    worker_->ReportProgress(start.task_id(), step, {{"train/loss", 1.0 / step}});
  }
  worker_->ReportFinished(start.task_id());
  WaitFor(start.job_id(), "SUCCEEDED");
  const std::string path = "/v1/jobs/" + start.job_id() + "/metrics";
  const Answer page = cluster_.Get(path + "?limit=10");
  ASSERT_EQ(page.json["items"].size(), 10u);
  EXPECT_EQ(page.json["items"][9]["step"], 10);
  EXPECT_EQ(page.json["items"][9]["key"], "train/loss");
  EXPECT_EQ(page.json["items"][9]["attempt"], 1);
  const Answer next = cluster_.Get(path + "?limit=10&after=" + page.json["next_after"].dump());
  EXPECT_EQ(next.json["items"][0]["step"], 11);
  const auto all = cluster_.Follow(path + "?follow=1");
  ASSERT_EQ(all.size(), static_cast<size_t>(kSteps));
  EXPECT_EQ(json::parse(all.back().data)["step"], kSteps);
}

TEST_F(JobRunTest, ARepeatedReportIsKeptOnce) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  worker_->ReportLog(start.task_id(), {"only once"});
  const std::string path = "/v1/jobs/" + start.job_id() + "/logs";
  ASSERT_TRUE(Eventually([&] { return cluster_.Get(path).json["items"].size() == 1; }));
  // As an agent does whose connection broke before the acknowledgement.
  wire::ToCoordinator message;
  auto& report = *message.mutable_report();
  report.set_task_id(start.task_id());
  report.set_seq(2);
  report.mutable_log()->add_lines("only once");
  worker_->Send(message);
  worker_->ReportLog(start.task_id(), {"then this"});
  ASSERT_TRUE(Eventually([&] { return cluster_.Get(path).json["items"].size() >= 2; }));
  const Answer logs = cluster_.Get(path);
  ASSERT_EQ(logs.json["items"].size(), 2u);
  EXPECT_EQ(logs.json["items"][1]["line"], "then this");
}

TEST_F(JobRunTest, ALongPollAnswersAtTheStateOrAfterItsTime) {
  const auto start = Start();
  const Answer now = cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=50ms");
  EXPECT_EQ(now.Text("state"), "STARTING");
  auto waiting = std::async(
      std::launch::async, [&] { return cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=10s"); });
  worker_->ReportStarted(start.task_id());
  worker_->ReportFinished(start.task_id(), "INVALID_ARGUMENT");
  const Answer failed = waiting.get();
  EXPECT_EQ(failed.Text("state"), "FAILED") << failed.body;
  EXPECT_EQ(cluster_.Get("/v1/jobs/x?wait=10s").status, 404);
  EXPECT_EQ(cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=soon").Text("field"), "wait");
}

TEST_F(JobRunTest, LongPollsThatAreOverAreForgotten) {
  const auto start = Start();
  const auto waiting = [&] { return cluster_.Get("/metrics").body; };
  std::vector<std::future<Answer>> polls;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=1ms").status, 200);
    polls.push_back(std::async(std::launch::async, [&] {
      return cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=2s");
    }));
  }
  EXPECT_TRUE(
      Eventually([&] { return waiting().find("\nlepton_job_watchers 3\n") != std::string::npos; }));
  for (auto& poll : polls) EXPECT_EQ(poll.get().Text("state"), "STARTING");
  EXPECT_THAT(waiting(), testing::HasSubstr("\nlepton_job_watchers 0\n"));
}

TEST_F(JobRunTest, CancelStopsTheTask) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  const Answer answer = cluster_.Call("POST", "/v1/jobs/" + start.job_id() + ":cancel");
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(worker_->Take(Kind::kStop).stop().task_id(), start.task_id());
  worker_->ReportFinished(start.task_id(), "CANCELLED");
  EXPECT_EQ(WaitFor(start.job_id(), "CANCELLED").Text("state"), "CANCELLED");
  EXPECT_EQ(cluster_.Call("POST", "/v1/jobs/none:cancel").status, 404);
}

TEST_F(JobRunTest, ReportsAreAcknowledgedAndARunGoesOnOverARestart) {
  const auto start = Start();
  worker_->ReportStarted(start.task_id());
  EXPECT_GE(worker_->Take(Kind::kAck).ack().seq(), 1u);
  WaitFor(start.job_id(), "RUNNING");
  cluster_.Restart();
  // The same process says Hello again, with its task, which nobody stops.
  const auto welcome = worker_->Take(Kind::kWelcome).welcome();
  EXPECT_EQ(welcome.unknown_task_ids_size(), 0);
  worker_->ReportFinished(start.task_id());
  const Answer done = WaitFor(start.job_id(), "SUCCEEDED");
  EXPECT_EQ(done.Text("state"), "SUCCEEDED") << done.body;
  EXPECT_EQ(done.json["attempt"], 1);
  EXPECT_EQ(done.json["restarts"], 0);
  EXPECT_FALSE(worker_->Has(Kind::kStart));
}

TEST_F(JobRunTest, ADeploymentIsScaledUnderItsEtag) {
  MakeModel("small");
  const std::string body = R"({"name":"d","model":"small@1","replicas":1})";
  EXPECT_EQ(cluster_.Call("POST", "/v1/deployments", R"({"name":"d","model":"none"})").status, 404);
  EXPECT_EQ(cluster_.Call("POST", "/v1/deployments", R"({"name":"d"})").status, 400);
  const Answer made = cluster_.Call("POST", "/v1/deployments", body);
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(made.Text("state"), "STARTING");
  const std::string etag = made.Header("ETag");
  EXPECT_FALSE(etag.empty());

  const auto start = worker_->Take(Kind::kStart).start();
  EXPECT_EQ(start.kind(), "infer");
  worker_->ReportStarted(start.task_id());
  wire::TaskReport ready;
  ready.set_task_id(start.task_id());
  ready.mutable_ready()->set_host("127.0.0.1");
  ready.mutable_ready()->set_port(9);
  worker_->Report(ready);
  EXPECT_TRUE(
      Eventually([&] { return cluster_.Get("/v1/deployments/d").Text("state") == "READY"; }));
  const Answer replicas = cluster_.Get("/v1/deployments/d/replicas");
  ASSERT_EQ(replicas.json["items"].size(), 1u);
  EXPECT_EQ(replicas.json["items"][0]["address"], "127.0.0.1:9");

  const http::Headers match = {{"If-Match", etag}};
  const Answer scaled = cluster_.Call("PATCH", "/v1/deployments/d", R"({"replicas":2})", match);
  EXPECT_EQ(scaled.status, 200) << scaled.body;
  EXPECT_EQ(scaled.json["replicas"], 2);
  EXPECT_NE(scaled.Header("ETag"), etag);
  const Answer stale = cluster_.Call("PATCH", "/v1/deployments/d", R"({"replicas":3})", match);
  EXPECT_EQ(stale.status, 412) << stale.body;
  EXPECT_EQ(cluster_.Call("POST", "/v1/deployments/d:scale", R"({"replicas":99})").Text("field"),
            "replicas");
  EXPECT_EQ(cluster_.Call("PATCH", "/v1/deployments/none", R"({"replicas":1})").status, 404);
  EXPECT_EQ(cluster_.Call("DELETE", "/v1/deployments/d", "", match).status, 412);
  EXPECT_EQ(cluster_.Call("DELETE", "/v1/deployments/d").status, 202);
  EXPECT_EQ(cluster_.Get("/v1/deployments/none").status, 404);
}

// Before any worker is back, and so before anything is committed.
TEST_F(JobRunTest, BehindARestartADeploymentIsKnownAtOnce) {
  MakeModel("small");
  const Answer made =
      cluster_.Call("POST", "/v1/deployments", R"({"name":"d","model":"small@1","replicas":1})");
  ASSERT_EQ(made.status, 201) << made.body;
  worker_.reset();
  cluster_.Restart();
  const Answer asked = cluster_.Call("POST", "/v1/deployments/d:predict", "{}");
  EXPECT_EQ(asked.status, 503) << asked.body;  // no replica is ready
}

TEST_F(JobRunTest, StoppingAnswersThoseWhoWait) {
  const auto start = Start();
  auto waiting = std::async(
      std::launch::async, [&] { return cluster_.Get("/v1/jobs/" + start.job_id() + "?wait=30s"); });
  auto following = std::async(std::launch::async, [&] {
    return cluster_.Follow("/v1/jobs/" + start.job_id() + "/events?follow=1");
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const MonotonicTime before = RealClock().Now();
  cluster_.coordinator().Stop(std::chrono::seconds(5));
  EXPECT_LT(RealClock().Now() - before, std::chrono::seconds(3));
  EXPECT_EQ(waiting.get().status, 200);
  EXPECT_FALSE(following.get().empty());
}

}  // namespace
}  // namespace lepton::scheduler
