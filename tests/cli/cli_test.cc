#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "cli/api_client.h"
#include "cli/follow_job.h"
#include "cli/launch.h"
#include "cli/output.h"
#include "cli/run_state.h"
#include "cli/signals.h"
#include "cli/spec_file.h"
#include "runtime/base/file.h"
#include "runtime/http/server.h"

namespace lepton::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(Output, TablesAlignTextLeftAndNumbersRight) {
  Table table({"NAME", "N"});
  table.Row({"a", "10"});
  table.Row({"long", "5"});
  EXPECT_EQ(table.ToString(), "NAME  N\na     10\nlong   5\n");
}

TEST(Output, AColumnOfMixedCellsIsText) {
  Table table({"FIELD", "VALUE"});
  table.Row({"a", "10"});
  table.Row({"b", "text"});
  EXPECT_EQ(table.ToString(), "FIELD  VALUE\na      10\nb      text\n");
}

TEST(Output, TablesCountCharactersNotBytes) {
  Table table({"NAME", "N"});
  table.Row({"größer", "1"});
  table.Row({"small", "2"});
  EXPECT_EQ(table.ToString(), "NAME    N\ngrößer  1\nsmall   2\n");
}

TEST(Output, FindsFieldsWhoseNamesHoldDotsAndSlashes) {
  const json job = {{"metrics", {{"train/loss", 0.25}}}, {"a", {{"b.c", 1}}}, {"n", nullptr}};
  EXPECT_EQ(Text(job, "metrics.train/loss"), "0.25");
  EXPECT_EQ(Text(job, "a.b.c"), "1");
  EXPECT_EQ(Text(job, "n"), "-");
  EXPECT_EQ(Text(job, "none.at.all"), "-");
}

TEST(Output, YamlKeepsTextsThatLookLikeNumbers) {
  const std::string yaml = Document({{"a", "1"}, {"b", 1}, {"c", {true, "x"}}}, "yaml");
  EXPECT_EQ(yaml, "a: \"1\"\nb: 1\nc:\n  - true\n  - x\n");
}

// PyYAML and others read YAML 1.1, in which more words and numbers are no texts.
TEST(Output, YamlQuotesWhatAnyReaderTakesForSomethingElse) {
  const auto yaml = [](const json& value) { return Document({{"v", value}}, "yaml"); };
  for (const char* text :
       {"no",    "Yes",  "on",    "OFF",  "y",          "N",  "true", "Null", "~",    "",
        "01234", "0x10", "1_000", "1:30", "2024-01-02", ".5", "1e5",  "-",    "a: b", "a #b",
        "x ",    "*a",   "&a",    "!x",   "%x",         "@x", "`x",   "a\nb", "<<",   "="}) {
    EXPECT_THAT(yaml(text), testing::StartsWith("v: \"")) << text;
  }
  EXPECT_EQ(yaml("node no. 7"), "v: node no. 7\n");
  EXPECT_EQ(yaml("train/loss"), "v: train/loss\n");
  EXPECT_EQ(yaml(1e-5), "v: 1.0e-05\n");
  EXPECT_EQ(yaml(1.5e-5), "v: 1.5e-05\n");
  EXPECT_EQ(yaml(0.25), "v: 0.25\n");
  EXPECT_EQ(Document({{"yes", 1}, {"017", 2}}, "yaml"), "\"017\": 2\n\"yes\": 1\n");
}

TEST(Output, HumanUnits) {
  EXPECT_EQ(Bytes(1536), "1.5 KiB");
  EXPECT_EQ(Percent(0.97222), "97.22%");
  EXPECT_EQ(Age(1000, 193'000), "3m12s");
}

TEST(ProgressLine, WhatIsOverInAMomentPrintsNothing) {
  ::testing::internal::CaptureStderr();  // a file: no terminal
  {
    ProgressLine progress;
    progress.Show("digits STARTING  1 worker");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(StopSignals, AWaitThatIsCutIntoSlicesEndsAtItsDeadlineOnly) {
  sigset_t before;
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, nullptr, &before), 0);
  StopSignals signals;
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_FALSE(signals.Wait(Deadline::In(std::chrono::milliseconds(200)), /*slice_ms=*/10));
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(200));
  ASSERT_EQ(::raise(SIGTERM), 0);
  EXPECT_TRUE(signals.Wait(Deadline::Never(), /*slice_ms=*/10));
  EXPECT_TRUE(signals.stopped());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(FollowJob, ResultLineCarriesTheDigestAndMetrics) {
  const json job = {{"id", "run"},
                    {"name", "digits"},
                    {"state", "SUCCEEDED"},
                    {"result",
                     {{"model", "digits"},
                      {"version", 2},
                      {"weights_sha256", "abc"},
                      {"steps", 460},
                      {"metrics", {{"test/accuracy", 0.975}}}}}};
  EXPECT_EQ(ResultLine(job, 2),
            "model digits@2 sha256:abc workers=2 steps=460 test/accuracy=0.975");
  EXPECT_EQ(JobExitStatus(job), kExitOk);
  EXPECT_EQ(JobExitStatus({{"state", "FAILED"}}), kExitFailed);
  EXPECT_EQ(JobExitStatus({{"state", "CANCELLED"}}), kExitCancelled);
}

TEST(FollowJob, ProgressIsOfTheWorkThatIsLeftAtThePaceOfNow) {
  // Begun an hour ago, and put off for most of that.
  json job = {{"name", "digits"},
              {"state", "RUNNING"},
              {"started_ms", RealClock().WallMs() - 3'600'000},
              {"progress", {{"step", 100}, {"total_steps", 400}, {"samples_per_second", 640}}},
              {"spec", {{"batch_size", 64}}}};
  EXPECT_THAT(ProgressText(job), HasSubstr("step 100/400  640 samples/s  ETA 31s"));
  job["state"] = "RECOVERING";
  EXPECT_THAT(ProgressText(job), testing::Not(HasSubstr("ETA")));
  job = {{"name", "lr"},
         {"state", "RUNNING"},
         {"progress", {{"step", 3}, {"total_steps", 12}}},
         {"search", {{"metric", "validation/accuracy"}, {"best_score", 0.9375}}}};
  EXPECT_THAT(ProgressText(job), HasSubstr("trial 3/12  best validation/accuracy 0.9375"));
}

TEST(FollowJob, WaitsForWhatRanksHaveToHandOver) {
  const auto patience = [](const char* budget) {
    return StopPatience({{"spec", {{"elastic", {{"recovery_budget", budget}}}}}});
  };
  EXPECT_EQ(StopPatience(json::object()), std::chrono::seconds(5));
  EXPECT_EQ(patience("500ms"), std::chrono::seconds(5));
  EXPECT_GT(patience("30s"), std::chrono::seconds(30));
  EXPECT_EQ(patience("1h"), std::chrono::seconds(62));
}

// As long as a call takes for somebody who was stopped in it (Ctrl-Z, a paused container).
TEST(FollowJob, AsksAgainThoughItsCallTookLongerThanACoordinatorMayBeAway) {
  std::atomic<int> calls{0};
  http::ResponderPtr unanswered;
  const auto server = http::Server::Start({}, [&](http::Request, http::ResponderPtr responder) {
    if (calls++ == 0) {
      unanswered = std::move(responder);
    } else {
      responder->Send(http::Response::Json(200, R"({"id": "j", "state": "SUCCEEDED"})"));
    }
  });
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  const auto client = ApiClient::ForUrl("http://127.0.0.1:" + std::to_string((*server)->port()));
  ASSERT_TRUE(client.ok());
  const Result<json> job =
      FollowJob(**client, "j", [] { return false; }, nullptr,
                {.call = std::chrono::milliseconds(200), .away = std::chrono::milliseconds(100)});
  ASSERT_TRUE(job.ok()) << job.status().ToString();
  EXPECT_EQ(Text(*job, "state"), "SUCCEEDED");
}

TEST(FollowJob, GivesUpACoordinatorThatIsAwayForTooLong) {
  const auto client = ApiClient::ForUrl("http://127.0.0.1:1");
  ASSERT_TRUE(client.ok());
  const MonotonicTime start = RealClock().Now();
  const Result<json> job = FollowJob(**client, "j", [] { return false; }, nullptr,
                                     {.away = std::chrono::milliseconds(300)});
  EXPECT_EQ(job.status().code(), StatusCode::kUnavailable);
  EXPECT_GE(RealClock().Now() - start, std::chrono::milliseconds(300));
}

TEST(RunState, NamesTheFirstFieldThatDiffers) {
  TempFolder folder;
  const std::string path = folder.path() / "job.yaml";
  const auto load = [&](const std::string& text) {
    EXPECT_TRUE(WriteFileAtomic(path, "kind: train\ndataset: digits\n" + text).ok());
    const Result<SpecFile> file = LoadSpecFile(path);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return *file;
  };
  const SpecFile plain = load("");
  const json workers = json::array({{{"slots", 4}}, {{"slots", 3}}});
  const auto began = spec::JobSpecFromJson(WithWorkers(plain, workers));
  ASSERT_TRUE(began.ok()) << began.status().ToString();
  EXPECT_EQ(began->resources.max_workers, 2);
  EXPECT_EQ(began->resources.slots_per_worker, 3);
  const json job = {{"spec", spec::JobSpecToJson(*began)}};
  EXPECT_TRUE(CheckSameSpec(plain, job).ok()) << CheckSameSpec(plain, job).ToString();
  EXPECT_THAT(CheckSameSpec(load("optimizer: {lr: 0.5}\n"), job).message(),
              HasSubstr("optimizer.lr: 0.5 now, 0.001 before"));
  EXPECT_THAT(CheckSameSpec(load("resources: {max_workers: 3}\n"), job).message(),
              HasSubstr("resources.max_workers: 3 now, 2 before"));
  EXPECT_THAT(CheckSameSpec(load("deadline: 1h\n"), job).message(),
              HasSubstr("deadline: \"1h\" now, null before"));
}

TEST(RunState, WordsOfACommandAreQuotedIfNeedBe) {
  EXPECT_EQ(ShellWord("runs/a-1.yaml"), "runs/a-1.yaml");
  EXPECT_EQ(ShellWord("my run's"), "'my run'\\''s'");
  EXPECT_EQ(ShellWord(""), "''");
}

TEST(SpecFile, MakesDatasetPathsAbsoluteAndNamesTheFileInErrors) {
  TempFolder folder;
  const std::string path = folder.path() / "job.yaml";
  ASSERT_TRUE(WriteFileAtomic(path, "kind: train\ndataset: {uri: data/a.csv}\n").ok());
  const Result<SpecFile> file = LoadSpecFile(path);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(file->spec.dataset.uri, "file://" + (folder.path() / "data/a.csv").string());
  EXPECT_THAT(file->data_folders, testing::ElementsAre(folder.path() / "data"));
  ASSERT_TRUE(WriteFileAtomic(path,
                              "kind: train\nloss: next_token\n"
                              "dataset: {uri: pets/, tokenizer: t/tokenizer.json}\n")
                  .ok());
  const Result<SpecFile> text = LoadSpecFile(path);
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_EQ(text->spec.dataset.tokenizer,
            "file://" + (folder.path() / "t/tokenizer.json").string());
  EXPECT_THAT(text->data_folders, testing::ElementsAre(folder.path(), folder.path() / "t"));
  ASSERT_TRUE(WriteFileAtomic(path, "kind: train\ndataset: digits\nepochs: many\n").ok());
  EXPECT_THAT(LoadSpecFile(path).status().message(), HasSubstr("job.yaml: epochs: \"many\""));
  EXPECT_THAT(LoadSpecFile("/no/such.yaml").status().message(), HasSubstr("/no/such.yaml"));
}

TEST(SpecFile, MakesPathsOfModelsAbsoluteAndLeavesNamesOfRegisteredOnes) {
  TempFolder folder;
  const std::string path = folder.path() / "job.yaml";
  const auto load = [&](const std::string& rest) {
    EXPECT_TRUE(WriteFileAtomic(path, rest + "dataset: {uri: 'a 100%.csv'}\n").ok());
    const Result<SpecFile> file = LoadSpecFile(path);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return *file;
  };
  const SpecFile left = load("kind: evaluate\nmodel: {from: ./lepton-runs/first}\n");
  EXPECT_EQ(left.spec.dataset.uri, "file://" + folder.path().string() + "/a%20100%25.csv");
  EXPECT_EQ(left.spec.model.from, "file://" + (folder.path() / "lepton-runs/first").string());
  EXPECT_THAT(left.data_folders,
              testing::UnorderedElementsAre(folder.path(), folder.path() / "lepton-runs"));
  EXPECT_EQ(load("kind: batch\nmodel: runs/first/\n").spec.model.from,
            "file://" + (folder.path() / "runs/first/").string());
  EXPECT_EQ(load("kind: batch\nmodel: first@2\n").spec.model.from, "first@2");
  EXPECT_EQ(load("kind: distill\nteacher: ../big\n").spec.distill->teacher,
            "file://" + (folder.path().parent_path() / "big").string());
  EXPECT_EQ(load("kind: train\nmodel: {hf: body}\n").spec.model.hf, folder.path() / "body");
  const SpecFile file = load("kind: train\nmodel: {onnx: m/a.onnx}\n");
  EXPECT_EQ(file.spec.model.onnx, folder.path() / "m/a.onnx");
  EXPECT_THAT(file.data_folders, testing::UnorderedElementsAre(folder.path(), folder.path() / "m"));
}

TEST(ApiClient, ReadsContextsAndRefusesUnknownOnes) {
  TempFolder folder;
  ASSERT_TRUE(MakeFolders(folder.path() / "lepton").ok());
  ASSERT_TRUE(WriteFileAtomic(folder.path() / "lepton/config.yaml",
                              "current: lab\ncontexts: {lab: {coordinator: 'http://lab:1'}, "
                              "bad: {url: x}}\n")
                  .ok());
  ::setenv("XDG_CONFIG_HOME", folder.path().c_str(), 1);
  ::unsetenv("LEPTON_COORDINATOR");
  Globals globals;
  EXPECT_EQ((*ApiClient::FromGlobals(globals))->url(), "http://lab:1");
  ::setenv("LEPTON_COORDINATOR", "http://env:2", 1);
  EXPECT_EQ((*ApiClient::FromGlobals(globals))->url(), "http://env:2");
  globals.coordinator = "http://flag:3";
  EXPECT_EQ((*ApiClient::FromGlobals(globals))->url(), "http://flag:3");
  globals.context = "bad";
  EXPECT_THAT(ApiClient::FromGlobals(globals).status().message(), HasSubstr("contexts.bad.url"));
  globals.context = "none";
  EXPECT_THAT(ApiClient::FromGlobals(globals).status().message(), HasSubstr("no context 'none'"));
  ::unsetenv("LEPTON_COORDINATOR");
  ::unsetenv("XDG_CONFIG_HOME");
}

TEST(ApiClient, SendsAKeyOnlyWhereItIsMeantToGo) {
  TempFolder folder;
  ASSERT_TRUE(MakeFolders(folder.path() / "lepton").ok());
  ASSERT_TRUE(WriteFileAtomic(folder.path() / "lepton/config.yaml",
                              "current: lab\ncontexts: {lab: {coordinator: 'https://lab:1', "
                              "api_key: lk_lab}}\n")
                  .ok());
  ::setenv("XDG_CONFIG_HOME", folder.path().c_str(), 1);
  ::unsetenv("LEPTON_COORDINATOR");
  ::unsetenv("LEPTON_API_KEY");
  ::unsetenv("LEPTON_INSECURE_HTTP");
  const auto has_key = [](const Globals& globals) {
    const auto client = ApiClient::FromGlobals(globals);
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    return client.ok() && (*client)->has_key();
  };
  EXPECT_TRUE(has_key({}));
  EXPECT_TRUE(has_key({.coordinator = "https://lab:1"}));
  EXPECT_FALSE(has_key({.coordinator = "https://other:1"}));
  EXPECT_FALSE(has_key({.coordinator = "https://other:1", .context = "lab"}));
  ::setenv("LEPTON_COORDINATOR", "https://env:2", 1);
  EXPECT_FALSE(has_key({}));
  // What is given for the call, or the shell, is for whatever is named there.
  EXPECT_TRUE(has_key({.coordinator = "https://other:1", .api_key = "lk_x"}));
  ::setenv("LEPTON_API_KEY", "lk_env", 1);
  EXPECT_TRUE(has_key({}));
  EXPECT_TRUE(has_key({.coordinator = "http://127.0.0.1:3"}));
  EXPECT_TRUE(has_key({.coordinator = "http://localhost:3"}));
  const Globals plain = {.coordinator = "http://other:1"};
  EXPECT_THAT(ApiClient::FromGlobals(plain).status().message(), HasSubstr("is not encrypted"));
  ::setenv("LEPTON_INSECURE_HTTP", "1", 1);
  EXPECT_TRUE(has_key(plain));
  ::unsetenv("LEPTON_INSECURE_HTTP");
  ::unsetenv("LEPTON_API_KEY");
  EXPECT_FALSE(has_key(plain));
  ::unsetenv("LEPTON_COORDINATOR");
  ::unsetenv("XDG_CONFIG_HOME");
}

TEST(ApiClient, SaysHowToStartAnAbsentCoordinator) {
  const auto client = ApiClient::ForUrl("http://127.0.0.1:1");
  ASSERT_TRUE(client.ok());
  const Result<json> answer = (*client)->Get("/v1/jobs", std::chrono::seconds(5));
  EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(answer.status().message(), HasSubstr("lepton coordinator"));
}

TEST(Launch, ReadsWhatMpirunAndSrunSet) {
  ::setenv("OMPI_COMM_WORLD_RANK", "2", 1);
  ::setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
  ::setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4", 1);
  const Launch launch = DetectLaunch();
  EXPECT_EQ(launch.info.name, "mpirun");
  EXPECT_EQ(launch.info.rank, 2u);
  EXPECT_EQ(launch.info.size, 4u);
  EXPECT_EQ(launch.local_size, 4);
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}) {
    ::unsetenv(name);
  }
  EXPECT_EQ(DetectLaunch().info.size, 1u);
}

// A network of its own has a loopback interface at most, and no route: the address is one still.
TEST(Launch, AHostWithoutARouteHasAnAddress) {
  constexpr int kMayNot = 77;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::unsetenv("LEPTON_HOST_ADDRESS");
    if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
      ::_exit(kMayNot);
    }
    ::_exit(HostAddress() == "127.0.0.1" ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kMayNot) GTEST_SKIP() << "no network namespaces here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(UrlEncode, KeepsSafeCharacters) {
  EXPECT_EQ(UrlEncode("a b/c@1"), "a%20b%2Fc@1");
}

}  // namespace
}  // namespace lepton::cli
