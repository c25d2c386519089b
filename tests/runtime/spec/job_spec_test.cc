#include "runtime/spec/job_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lepton::spec {
namespace {

using ::testing::HasSubstr;

constexpr char kTrain[] = R"(
kind: train
name: digits-mlp
dataset: {uri: "file:///data/digits.csv", label: target, split: {train: 0.8, validation: 0.1, seed: 7}}
model: {arch: mlp, hidden: [128, 64], activation: relu}
optimizer: {name: adamw, lr: 1e-3, weight_decay: 0.01}
schedule: {name: cosine, warmup_steps: 50}
batch_size: 256
epochs: 20
precision: bf16
resources: {device: cpu, min_workers: 1, max_workers: 4}
elastic: {logical_shards: 8, recovery_budget: 2s}
checkpoint: {every_steps: 100, keep_last: 2, keep_best: {metric: validation/accuracy, mode: max}}
restart: {max: 5, backoff: 1s, log_policies: [{pattern: "CUDA error", action: exclude_worker}]}
deadline: 2h
register: digits-mlp
)";

TEST(JobSpec, ReadsEveryFieldOfATrainSpec) {
  const Result<JobSpec> spec = ParseJobSpec(kTrain);
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->kind, JobKind::kTrain);
  EXPECT_EQ(spec->dataset.split.seed, 7u);
  EXPECT_EQ(spec->model.hidden, (std::vector<int64_t>{128, 64}));
  EXPECT_DOUBLE_EQ(spec->optimizer.lr, 1e-3);
  EXPECT_EQ(spec->schedule.warmup_steps, 50);
  EXPECT_EQ(spec->resources.max_workers, 4);
  EXPECT_EQ(spec->elastic.recovery_budget, std::chrono::seconds(2));
  EXPECT_EQ(spec->restart.log_policies.at(0).action, "exclude_worker");
  EXPECT_EQ(spec->deadline, std::chrono::hours(2));
  EXPECT_EQ(spec->register_as, "digits-mlp");
}

TEST(JobSpec, SurvivesTheRoundTripThroughJson) {
  for (const char* text :
       {kTrain,
        "{kind: tune, dataset: digits, search: {trials: 4, space: {optimizer.lr: {loguniform: "
        "[1e-4, "
        "1e-1]}, model.hidden: {choice: [[16], [32, 16]]}, batch_size: {logint: [16, 64]}}}}",
        "{kind: distill, dataset: digits@2, teacher: digits@prod, temperature: 4, alpha: 0.9}",
        "{kind: evaluate, dataset: digits, model: digits@1}",
        "{kind: evaluate, dataset: digits, model: digits@1, precision: int8}",
        "{kind: batch, dataset: digits, model: digits@1, output: jsonl, generate: {max_tokens: 8}}",
        "{kind: train, dataset: {uri: file:///a.txt, tokenizer: bytes, context: 64}, loss: "
        "next_token, accumulate: 2}",
        "{kind: train, dataset: {uri: file:///a, image: {height: 8, width: 8, mean: [0.5], std: "
        "[0.25], flip: true}}}"}) {
    const Result<JobSpec> spec = ParseJobSpec(text);
    ASSERT_TRUE(spec.ok()) << spec.status().ToString();
    const nlohmann::json written = JobSpecToJson(*spec);
    const Result<JobSpec> again = JobSpecFromJson(written);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(JobSpecToJson(*again), written);
  }
}

TEST(JobSpec, FillsDefaultsThatDependOnOtherFields) {
  const Result<JobSpec> sgd = ParseJobSpec("{kind: train, dataset: digits, optimizer: sgd}");
  ASSERT_TRUE(sgd.ok()) << sgd.status().ToString();
  EXPECT_EQ(sgd->name, "train-digits");
  EXPECT_EQ(sgd->optimizer.weight_decay, 0);
  const Result<JobSpec> ask = ParseJobSpec("{kind: batch, dataset: digits, model: digits@1}");
  ASSERT_TRUE(ask.ok()) << ask.status().ToString();
  EXPECT_EQ(ask->precision, "model");
  const Result<JobSpec> mse = ParseJobSpec("{kind: train, dataset: digits, loss: mse}");
  ASSERT_TRUE(mse.ok());
  EXPECT_EQ(mse->checkpoint.keep_best.metric, "validation/loss");
  const Result<JobSpec> three = ParseJobSpec(
      "{kind: train, dataset: digits, loss: mse, checkpoint: {keep_best: {count: 3}}}");
  ASSERT_TRUE(three.ok());
  EXPECT_EQ(three->checkpoint.keep_best.metric, "validation/loss");
  EXPECT_EQ(three->checkpoint.keep_best.mode, "min");
}

// Which way a metric is better is known: whoever names one need not say.
TEST(JobSpec, TheModeFollowsTheMetric) {
  struct {
    const char *loss, *metric, *mode;
  } const cases[] = {{"cross_entropy", "validation/loss", "min"},
                     {"cross_entropy", "validation/accuracy", "max"},
                     {"mse", "test/mse", "min"},
                     {"mse", "train/r2", "max"},
                     {"next_token", "validation/perplexity", "min"},
                     {"next_token", "validation/accuracy", "max"},
                     {"mse", "seconds", "min"},
                     {"mse", "grad_norm", "min"},
                     {"mse", "samples_per_second", "max"}};
  for (const auto& [loss, metric, mode] : cases) {
    for (const std::string given : {"", "min", "max"}) {
      const std::string best =
          std::string("{metric: ") + metric + (given.empty() ? "" : ", mode: " + given);
      const std::string text = std::string("{kind: tune, dataset: digits, loss: ") + loss +
                               ", checkpoint: {keep_best: " + best + "}}, search: " + best +
                               ", space: {optimizer.lr: {uniform: [0.1, 0.2]}}}}";
      const Result<JobSpec> spec = ParseJobSpec(text);
      ASSERT_TRUE(spec.ok()) << text << ": " << spec.status().ToString();
      EXPECT_EQ(spec->search->mode, given.empty() ? mode : given) << text;
      EXPECT_EQ(spec->checkpoint.keep_best.mode, given.empty() ? mode : given) << text;
    }
  }
}

struct Refusal {
  std::string text;
  const char* says;
};

// A transformer over two ranks, or as `parallel` says.
std::string Divided(const std::string& resources, const std::string& more = "priority: 50",
                    const std::string& parallel = "{tensor: 2}") {
  return "{kind: train, dataset: digits, model: {arch: transformer}, resources: " + resources +
         ", " + more + ", parallel: " + parallel + "}";
}

TEST(JobSpec, ADividedModelHasItsWorkersAndRecoversByRestart) {
  const Result<JobSpec> spec = ParseJobSpec(Divided("{max_workers: 4}"));
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->parallel.tensor, 2);
  EXPECT_EQ(spec->resources.min_workers, 4);
  EXPECT_EQ(spec->elastic.recovery, "restart");
  EXPECT_EQ(spec->shards(), 2) << "what computes a shard is two workers";
  const Result<JobSpec> again = JobSpecFromJson(JobSpecToJson(*spec));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(JobSpecToJson(*again), JobSpecToJson(*spec));
}

class JobSpecRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(JobSpecRefusal, NamesTheFieldAndTheFix) {
  const Result<JobSpec> spec = ParseJobSpec(GetParam().text);
  ASSERT_FALSE(spec.ok()) << GetParam().text;
  EXPECT_EQ(spec.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(spec.status().message(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Table, JobSpecRefusal,
    ::testing::Values(
        Refusal{"", "the document is empty"}, Refusal{"[1, 2]", "must be a mapping"},
        Refusal{"{dataset: digits}", "kind: missing"},
        Refusal{"{kind: serve, dataset: digits}", "kind: \"serve\" is not one of train"},
        Refusal{"{kind: train}", "dataset: missing"},
        Refusal{"{kind: train, dataset: {name: a, uri: file:///x}}", "dataset: has both"},
        Refusal{"{kind: train, dataset: {uri: s3://x}}", "dataset.uri: 's3://x' must start with"},
        Refusal{"{kind: train, dataset: digits, optimiser: sgd}", "did you mean 'optimizer'?"},
        Refusal{"{kind: train, dataset: digits, optimizer: {lrr: 1}}",
                "optimizer.lrr: unknown field; did you mean 'lr'?"},
        Refusal{"{kind: train, dataset: digits, optimizer: {lr: -1}}",
                "optimizer.lr: -1 is out of range: must be greater than 0"},
        Refusal{"{kind: train, dataset: digits, optimizer: {lr: fast}}",
                "optimizer.lr: \"fast\" is not a number"},
        Refusal{"{kind: train, dataset: digits, batch_size: 2.5}",
                "batch_size: 2.5 is not a whole number"},
        Refusal{"{kind: train, dataset: digits, batch_size: 0}", "batch_size: 0 is out of range"},
        Refusal{"{kind: train, dataset: digits, epochs: 1e30}", "epochs: "},
        Refusal{"{kind: train, dataset: digits, seed: -1}", "seed: -1 is not a whole number"},
        Refusal{"{kind: train, dataset: digits, model: {hidden: [8, 0]}}",
                "model.hidden.1: 0 is out of range"},
        Refusal{"{kind: train, dataset: digits, model: {activation: swish}}",
                "model.activation: \"swish\" is not one of relu"},
        Refusal{"{kind: train, dataset: digits, deadline: 5}", "deadline: 5 is not a duration"},
        Refusal{"{kind: train, dataset: digits, deadline: 5 parsecs}", "deadline: '5 parsecs'"},
        Refusal{"{kind: train, dataset: {name: digits, split: {train: 0.9, validation: 0.2}}}",
                "dataset.split: train + validation is more than 1"},
        Refusal{"{kind: train, dataset: digits, resources: {min_workers: 3, max_workers: 2}}",
                "resources.min_workers: 3 is more than max_workers, 2"},
        Refusal{"{kind: train, dataset: digits, name: 'a b'}", "name: 'a b' is not a name"},
        Refusal{"{kind: tune, dataset: digits, search: {space: {model.activation: {choice: [relu, "
                "bogus, gelu]}}}}",
                "search.space: model.activation: \"bogus\" is not one of"},
        Refusal{"{kind: train, dataset: digits, teacher: x@1}", "teacher: belongs to kind distill"},
        Refusal{"{kind: distill, dataset: digits}", "teacher: missing"},
        Refusal{"{kind: evaluate, dataset: digits}", "model.from: missing"},
        Refusal{"{kind: evaluate, dataset: digits, model: a@1, register: b}",
                "register: kind evaluate makes no model"},
        Refusal{"{kind: batch, dataset: digits}", "model.from: missing; name the model to ask"},
        Refusal{"{kind: train, dataset: digits, output: {format: csv}}",
                "output: belongs to kind batch"},
        Refusal{"{kind: batch, dataset: digits, model: a@1, output: xml}",
                "output.format: \"xml\" is not one of csv, jsonl"},
        Refusal{"{kind: batch, dataset: digits, model: a@1, generate: {temperature: -1}}",
                "generate.temperature: -1 is out of range"},
        Refusal{"{kind: train, dataset: digits, precision: int8}",
                "precision: \"int8\" is not one of f32, bf16"},
        Refusal{"{kind: batch, dataset: digits, model: a@1, precision: int4}",
                "precision: \"int4\" is not one of f32, bf16, model, int8"},
        Refusal{"{kind: train, dataset: digits, accumulate: 0}", "accumulate: 0 is out of range"},
        Refusal{"{kind: train, dataset: digits, gradients: {compression: zip}}",
                "gradients.compression: \"zip\" is not one of none, bf16, low_rank"},
        Refusal{"{kind: train, dataset: digits, parallel: {zero: 4}}",
                "parallel.zero: 4 is out of range"},
        Refusal{
            "{kind: train, dataset: digits, parallel: {zero: 2}, gradients: {compression: bf16}}",
            "parallel.zero: stages 2 and 3 need gradients.compression: none, not bf16"},
        Refusal{"{kind: train, dataset: digits, parallel: {zero: 1}, resources: {device: cuda}}",
                "parallel.zero: works with resources.device: cpu only"},
        Refusal{"{kind: train, dataset: digits, parallel: {tensor: 0}}",
                "parallel.tensor: 0 is out of range"},
        Refusal{
            "{kind: train, dataset: digits, parallel: {tensor: 2}, resources: {max_workers: 2}}",
            "parallel.tensor: divides layers of model.arch transformer only; with mlp it must "
            "be 1"},
        Refusal{Divided("{max_workers: 3}"),
                "resources.max_workers: 3 must be a multiple of parallel.tensor, 2"},
        Refusal{Divided("{max_workers: 4, min_workers: 2}"),
                "resources.min_workers: 2 must be max_workers, 4, with parallel.tensor"},
        Refusal{Divided("{max_workers: 2, device: cuda}"),
                "parallel.tensor: works with resources.device: cpu only"},
        Refusal{Divided("{max_workers: 2}", "elastic: {recovery: in_place}"),
                "parallel.tensor: needs elastic.recovery: restart"},
        Refusal{Divided("{max_workers: 2}", "gradients: low_rank"),
                "parallel.tensor: needs gradients.compression: none or bf16, not low_rank"},
        Refusal{Divided("{max_workers: 2}", "local_sgd: {inner_steps: 4}"),
                "parallel.tensor: needs local_sgd.inner_steps: 0"},
        Refusal{Divided("{max_workers: 2}", "collectives: nccl"),
                "parallel.tensor: needs collectives: auto, native or mpi, not nccl"},
        Refusal{Divided("{max_workers: 2}", "priority: 50", "{tensor: 2, zero: 1}"),
                "parallel.tensor: needs parallel.zero: 0"},
        Refusal{Divided("{max_workers: 3}", "priority: 50", "{tensor: 3}"),
                "parallel.tensor: 3 must divide model.heads, 4"},
        Refusal{"{kind: distill, dataset: digits, teacher: a@1, model: {arch: transformer}, "
                "parallel: {tensor: 2}, resources: {max_workers: 2}}",
                "parallel.tensor: is for kind train only; with distill it must be 1"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {inner_steps: -1}}",
                "local_sgd.inner_steps: -1 is out of range"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {inner_steps: 10, outer_optimizer: "
                "adam}}",
                "local_sgd.outer_optimizer.name: \"adam\" is not one of nesterov, sgd"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {outer_optimizer: {lr: 0}}}",
                "local_sgd.outer_optimizer.lr: 0 is out of range"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {outer_optimizer: {momentum: 1}}}",
                "local_sgd.outer_optimizer.momentum: 1 is out of range"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {inner_steps: 10}, parallel: {zero: 1}}",
                "parallel.zero must be 0, not 1"},
        Refusal{"{kind: train, dataset: digits, local_sgd: {inner_steps: 10}, gradients: low_rank}",
                "needs gradients.compression: none or bf16, not low_rank"},
        Refusal{"{kind: train, dataset: digits, gradients: {rank: 0}}",
                "gradients.rank: 0 is out of range"},
        Refusal{"{kind: train, dataset: digits, gradients: {bucket_bytes: 8}}",
                "gradients.bucket_bytes: 8 is less than 1024"},
        Refusal{"{kind: tune, dataset: digits}", "search.space: must name"},
        Refusal{
            "{kind: tune, dataset: digits, search: {space: {optimizer.rate: {uniform: [0, 1]}}}}",
            "optimizer.rate: unknown field"},
        Refusal{"{kind: tune, dataset: digits, search: {space: {optimizer.lr: {uniform: [0, 1]}}}}",
                "optimizer.lr: 0"},
        Refusal{"{kind: tune, dataset: digits, search: {space: {optimizer.lr: {normal: [0, 1]}}}}",
                "is not a dimension"},
        Refusal{"kind: train\nkind: tune\n", "line 2: the field 'kind' is there twice"},
        Refusal{"kind: &a train\nname: *a\n", "anchors and aliases are not allowed"},
        Refusal{"kind: train\n  dataset: [\n", "not valid YAML"},
        Refusal{R"({"kind": "train", )", "not valid JSON"}));

// What parses, since journals may have it, but is not taken any more.
TEST(JobSpec, WhatIsAskedForNowMustBeAbleToRun) {
  const auto said = [](const std::string& text) {
    const Result<JobSpec> spec = ParseJobSpec(text);
    EXPECT_TRUE(spec.ok()) << spec.status().ToString();
    return spec.ok() ? CheckSubmission(*spec) : Status::Ok();
  };
  const auto tune = [](const std::string& search, const std::string& more = "") {
    return "{kind: tune, dataset: {name: digits, split: {train: 0.9, validation: 0.1}}" + more +
           ", search: {" + search + "}}";
  };
  const std::string lr = "space: {optimizer.lr: {uniform: [0.1, 0.2]}}";
  for (const std::string& good : {
           std::string("{kind: train, dataset: digits}"),
           std::string("{kind: train, dataset: digits, loss: mse}"),
           std::string("{kind: train, dataset: {name: digits, split: {validation: 0}}}"),
           std::string("{kind: train, dataset: digits, loss: next_token, checkpoint: {keep_best: "
                       "{metric: validation/perplexity}}}"),
           std::string("{kind: train, dataset: digits, loss: next_token, checkpoint: {keep_best: "
                       "{count: 0}}}"),
           std::string("{kind: train, dataset: digits, loss: mse, checkpoint: {keep_best: {count: "
                       "3}}}"),
           std::string("{kind: train, dataset: digits, loss: mse, checkpoint: {keep_best: {count: "
                       "0, metric: validation/accuracy}}}"),
           std::string("{kind: evaluate, dataset: digits, model: a@1}"),
           tune(lr),
           tune("metric: train/loss, " + lr),
           tune("metric: seconds, mode: min, " + lr),
           tune("space: {model: {choice: [{hidden: [8]}, {hidden: [8, 8]}]}}"),
           tune("metric: validation/r2, " + lr, ", loss: mse"),
           tune("metric: validation/mse, space: {loss: {choice: [cross_entropy, mse]}}"),
           tune("space: {model.hidden: {choice: [[16], [32]]}, dataset.normalize: {choice: "
                "[standard, none]}, batch_size: {int: [1, 3]}}"),
       }) {
    EXPECT_TRUE(said(good).ok()) << good << ": " << said(good).ToString();
  }
  const std::pair<std::string, std::string> bad[] = {
      {"{kind: train, dataset: digits, restart: {log_policies: [{pattern: '(', action: "
       "fail_job}]}}",
       "restart.log_policies.0.pattern: not a regular expression"},
      {tune("space: {dataset: {choice: [digits, iris]}}"),
       "search.space: dataset: \"digits\": dataset.name is the whole search's"},
      {tune("space: {steps: {choice: [500, 5000]}}"),
       "search.space: steps is the budget of every trial"},
      {tune("space: {batch_size: {loguniform: [16, 256]}}"),
       "is not a whole number; whole numbers are drawn by {int: [low, high]}"},
      {tune("space: {epochs: {int: [1, 3]}}"), "search.space: epochs is the budget of every trial"},
      {tune("space: {model: {choice: [{hidden: [8]}, a@2]}}"),
       "search.space: model: \"a@2\": model.from is the whole search's"},
      {tune("space: {model: {choice: [{hidden: [8]}, {hf: /m}]}}"),
       "model.hf is the whole search's"},
      {"{kind: train, dataset: digits, collectives: nccl}",
       "collectives: nccl needs resources.device: cuda, not cpu"},
      {"{kind: evaluate, dataset: digits, model: {from: m@1}, precision: int8, resources: {device: "
       "cuda}}",
       "precision: int8 is computed with resources.device: cpu only"},
      {"{kind: train, dataset: digits, checkpoint: {keep_best: {metric: foo/bar}}}",
       "checkpoint.keep_best.metric: \"foo/bar\" is not reported"},
      // Checkpoints are not measured on the test part.
      {"{kind: train, dataset: digits, checkpoint: {keep_best: {metric: test/loss}}}",
       "checkpoint.keep_best.metric: \"test/loss\" is not reported"},
      {tune("metric: validation/acuracy, " + lr), "did you mean validation/accuracy?"},
      {tune("metric: validation/accuracy, " + lr, ", loss: mse"),
       "search.metric: \"validation/accuracy\" is not reported with loss mse"},
      {tune("metric: test/loss, " + lr), "search.metric: test/loss needs rows in the test part"},
      {"{kind: tune, dataset: {name: digits, split: {validation: 0}}, search: {" + lr + "}}",
       "search.metric: validation/accuracy needs rows in the validation part"},
      {tune("space: {resources.max_workers: {int: [1, 2]}}"),
       "search.space: resources.max_workers is the whole search's"},
      {tune("space: {dataset.name: {choice: [digits, iris]}}"),
       "search.space: dataset.name is the whole search's"},
      {tune("space: {priority: {int: [1, 2]}}"), "search.space: priority is the whole search's"},
  };
  for (const auto& [text, words] : bad) {
    EXPECT_EQ(said(text).code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(said(text).message(), HasSubstr(words)) << text;
  }
}

TEST(Document, RefusesHostileInput) {
  EXPECT_FALSE(DocumentToJson(std::string(2'000'000, 'a')).ok());
  EXPECT_FALSE(DocumentToJson(std::string(5000, '[')).ok());
  EXPECT_FALSE(DocumentToJson("{\"a\":" + std::string(5000, '[')).ok());
  EXPECT_FALSE(DocumentToJson("a: 1\n---\nb: 2\n").ok());
}

TEST(Document, AFlowMappingOfYamlMayHaveQuotes) {
  const Result<nlohmann::json> document = DocumentToJson(R"({kind: train, name: "1"})");
  ASSERT_TRUE(document.ok()) << document.status().ToString();
  EXPECT_EQ(document->dump(), R"({"kind":"train","name":"1"})");
  EXPECT_THAT(DocumentToJson(R"({"kind": "train", )").status().message(),
              HasSubstr("not valid JSON"));
  EXPECT_THAT(DocumentToJson(R"({kind: "train", )").status().message(), HasSubstr("line 1: "));
}

TEST(Document, KeepsQuotedScalarsAsText) {
  const Result<nlohmann::json> document = DocumentToJson("a: '1'\nb: 1\nc: no\nd: 1e-3\ne:\n");
  ASSERT_TRUE(document.ok());
  EXPECT_EQ(document->dump(), R"({"a":"1","b":1,"c":"no","d":0.001,"e":null})");
}

TEST(JobSpec, ApplyTrialSetsNestedFieldsAndRevalidates) {
  const Result<JobSpec> tune = ParseJobSpec(
      "{kind: tune, dataset: digits, search: {space: {model.hidden: {choice: [[16], [32]]}}}}");
  ASSERT_TRUE(tune.ok()) << tune.status().ToString();
  const Result<JobSpec> trial =
      ApplyTrial(*tune, {{"model.hidden", "[32]"}, {"optimizer.lr", "0.5"}});
  ASSERT_TRUE(trial.ok()) << trial.status().ToString();
  EXPECT_EQ(trial->kind, JobKind::kTrain);
  EXPECT_FALSE(trial->search.has_value());
  EXPECT_EQ(trial->model.hidden, std::vector<int64_t>{32});
  EXPECT_EQ(trial->optimizer.lr, 0.5);
  EXPECT_FALSE(ApplyTrial(*tune, {{"optimizer.lr", "-1"}}).ok());
}

// A tune of these, with a trial's values, as the journal gives it back.
Result<JobSpec> Trial(const std::string& fields, const std::map<std::string, std::string>& values) {
  const Result<JobSpec> tune = ParseJobSpec("{kind: tune, dataset: d, " + fields + "}");
  if (!tune.ok()) return tune.status();
  const Result<JobSpec> stored = JobSpecFromJson(JobSpecToJson(*tune));
  if (!stored.ok()) return stored.status();
  EXPECT_EQ(JobSpecToJson(*stored), JobSpecToJson(*tune));
  return ApplyTrial(*stored, values);
}

TEST(JobSpec, ATrialHasTheDefaultsOfItsOwnArchitecture) {
  const std::string search =
      ", search: {space: {model.arch: {choice: [resnet18, resnet34, resnet50]}}}";
  const auto trial = [&](const std::string& model, const char* arch) {
    const Result<JobSpec> spec =
        Trial("model: {arch: resnet18" + model + "}" + search, {{"model.arch", arch}});
    EXPECT_TRUE(spec.ok()) << spec.status().ToString();
    return spec.ok() ? spec->model : ModelSpec();
  };
  EXPECT_EQ(trial("", "\"resnet50\"").resnet.block, "bottleneck");
  EXPECT_EQ(trial("", "\"resnet50\"").resnet.widths.back(), 2048);
  EXPECT_EQ(trial("", "\"resnet34\"").resnet.depths, (std::vector<int64_t>{3, 4, 6, 3}));
  EXPECT_EQ(trial("", "\"resnet18\"").resnet.depths, (std::vector<int64_t>{2, 2, 2, 2}));
  // What the template says holds, be it the default of its own architecture or not.
  const ModelSpec given = trial(", dropout: 0.5, depths: [2, 2, 2, 2]", "\"resnet50\"");
  EXPECT_EQ(given.resnet.depths, (std::vector<int64_t>{2, 2, 2, 2}));
  EXPECT_EQ(given.resnet.block, "bottleneck");
  EXPECT_EQ(given.dropout, 0.5);
}

TEST(JobSpec, ASearchMayChooseAmongArchitecturesThatHaveOtherFields) {
  const std::string search =
      "search: {space: {model.arch: {choice: [mlp, vit]}, model.dropout: {uniform: [0, 0.5]}}}";
  const Result<JobSpec> vit = Trial(search, {{"model.arch", "\"vit\""}, {"model.dropout", "0.25"}});
  ASSERT_TRUE(vit.ok()) << vit.status().ToString();
  EXPECT_EQ(vit->model.arch, "vit");
  EXPECT_EQ(vit->model.activation, "gelu");
  EXPECT_EQ(vit->model.dropout, 0.25);
  EXPECT_THAT(Trial("model: {hidden: [16]}, " + search, {}).status().message(),
              HasSubstr("model.hidden: belongs to arch mlp, but arch is vit"));
}

TEST(JobSpec, ATrialHasTheDefaultsOfItsOwnStyle) {
  const auto trial = [](const std::string& model, const char* style) {
    const Result<JobSpec> spec =
        Trial("model: {arch: transformer, layers: 2" + model +
                  "}, search: {space: {model.style: {choice: [gpt2, llama, bert, qwen2]}}}",
              {{"model.style", style}});
    EXPECT_TRUE(spec.ok()) << spec.status().ToString();
    return spec.ok() ? spec->model : ModelSpec();
  };
  EXPECT_FALSE(trial("", "\"llama\"").transformer.tied);
  EXPECT_EQ(trial("", "\"llama\"").activation, "silu");
  EXPECT_EQ(trial("", "\"llama\"").transformer.layers, 2);
  EXPECT_EQ(trial("", "\"bert\"").transformer.token_types, 2);
  EXPECT_EQ(trial("", "\"bert\"").transformer.pool, "first");
  EXPECT_EQ(trial("", "\"qwen2\"").transformer.rope.base, 1e6);
  EXPECT_TRUE(trial(", tied: true", "\"llama\"").transformer.tied);
  const ModelSpec rope = trial(", rope: {factor: 2}", "\"qwen2\"");
  EXPECT_EQ(rope.transformer.rope.base, 1e6);
  EXPECT_EQ(rope.transformer.rope.factor, 2);
}

TEST(JobSpec, ATrialHasTheDefaultsOfItsOwnOptimizerAndLoss) {
  const std::string search = "search: {space: {optimizer.name: {choice: [adamw, sgd]}}}";
  EXPECT_EQ(Trial(search, {{"optimizer.name", "\"sgd\""}})->optimizer.weight_decay, 0);
  EXPECT_EQ(Trial(search, {{"optimizer.name", "\"adamw\""}})->optimizer.weight_decay, 0.01);
  EXPECT_EQ(Trial("optimizer: {name: adamw, weight_decay: 0.01}, " + search,
                  {{"optimizer.name", "\"sgd\""}})
                ->optimizer.weight_decay,
            0.01);
  EXPECT_EQ(
      Trial("optimizer: sgd, " + search, {{"optimizer.name", "\"adamw\""}})->optimizer.weight_decay,
      0.01);
  const std::string losses = "search: {space: {loss: {choice: [cross_entropy, mse]}}}";
  const Result<JobSpec> mse = Trial(losses, {{"loss", "\"mse\""}});
  ASSERT_TRUE(mse.ok()) << mse.status().ToString();
  EXPECT_EQ(mse->checkpoint.keep_best.metric, "validation/loss");
  EXPECT_EQ(mse->checkpoint.keep_best.mode, "min");
  const Result<JobSpec> given =
      Trial("checkpoint: {keep_best: {metric: train/loss, mode: min}}, " + losses,
            {{"loss", "\"cross_entropy\""}});
  EXPECT_EQ(given->checkpoint.keep_best.metric, "train/loss");
}

TEST(JobSpec, SchemaDescribesEveryField) {
  const nlohmann::json schema = JobSpecSchema();
  EXPECT_EQ(schema["properties"]["optimizer"]["oneOf"][1]["properties"]["lr"]["exclusiveMinimum"],
            0);
  for (const auto& [name, field] : schema["properties"].items()) {
    EXPECT_TRUE(field.contains("description")) << name;
  }
}

TEST(DeploymentSpec, RoundTripsAndRefuses) {
  const Result<nlohmann::json> document = DocumentToJson("{name: digits, model: digits@1}");
  const Result<DeploymentSpec> spec = DeploymentSpecFromJson(*document);
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->max_batch, 32);
  EXPECT_EQ(DeploymentSpecToJson(*DeploymentSpecFromJson(DeploymentSpecToJson(*spec))),
            DeploymentSpecToJson(*spec));
  EXPECT_FALSE(DeploymentSpecFromJson(*DocumentToJson("{name: a/b, model: digits}")).ok());
  EXPECT_FALSE(DeploymentSpecFromJson(*DocumentToJson("{name: a}")).ok());
}

}  // namespace
}  // namespace lepton::spec
