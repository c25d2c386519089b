// What a job asks for: the one schema behind YAML files, HTTP bodies and the journal. Parsing
// checks everything that can be checked without looking at data, and names the path of the field,
// what was found and what is allowed: "optimizer.lr: -1 is out of range: must be greater than 0".
// An unknown field is refused with the nearest known name. Every field has a default except kind,
// model and the data (and the teacher of a distillation). Threads: plain values.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/spec/dataset_spec.h"
#include "runtime/spec/model_spec.h"

namespace lepton::spec {

enum class JobKind { kTrain, kTune, kDistill, kEvaluate, kBatch };
std::string_view JobKindName(JobKind kind);
std::vector<std::string_view> JobKindNames();

struct OptimizerSpec {
  std::string name = "adamw";  // sgd | adam | adamw
  double lr = 1e-3;
  double weight_decay = 0.01;  // default 0 for sgd and adam
  double momentum = 0.9;       // sgd
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  std::string decay = "all";  // all | matrices: what weight_decay is for
};

struct ScheduleSpec {
  std::string name = "constant";  // constant | cosine | step
  int64_t warmup_steps = 0;
  int64_t step_size = 0;  // step: multiply by gamma each step_size steps
  double gamma = 0.1;
  double min_lr_ratio = 0;  // cosine ends at lr * this
};

struct ResourceSpec {
  std::string device = "cpu";  // cpu | cuda
  int min_workers = 1;
  int max_workers = 1;
  int slots_per_worker = 1;
};

struct KeepBestSpec {
  std::string metric = "validation/accuracy";
  std::string mode = "max";  // min | max; if not given, as the metric is better
  int count = 1;
};
struct CheckpointSpec {
  int64_t every_steps = 100;
  int keep_last = 2;
  KeepBestSpec keep_best;
};

struct LogPolicy {
  std::string pattern;  // regular expression: runtime/base/pattern.h
  std::string action;   // exclude_worker | fail_job
};
struct RestartSpec {
  int max = 5;
  Duration backoff = std::chrono::seconds(1);
  std::vector<LogPolicy> log_policies;
};

struct ElasticSpec {
  int logical_shards = 0;  // 0: max_workers
  Duration recovery_budget = std::chrono::seconds(10);
  std::string recovery = "in_place";  // or restart: from the newest checkpoint or shard
};

// How gradients travel between the ranks of a gang.
struct GradientsSpec {
  static constexpr int64_t kBucketBytes = int64_t{1} << 20;
  int64_t bucket_bytes = 0;          // 0: measured, from kBucketBytes on
  std::string compression = "none";  // none | bf16 | low_rank
  int rank = 4;                      // of low_rank's factors
  // Of all that is cut alike on ranks that have not measured anything together.
  int64_t piece_bytes() const { return bucket_bytes > 0 ? bucket_bytes : kBucketBytes; }
};

// What each rank of a gang holds of the training state.
struct ParallelSpec {
  // ZeRO's stage: 0 all of it; 1: 2/ranks of the optimizer's state; 2: of the gradients too; 3: and
  // of the weights, the others of which are there only while they are read.
  // docs/decisions/zero.md
  int zero = 0;
  // So many neighbours in rank share each layer of a transformer, and so a logical shard. 1: none.
  // docs/decisions/tensor_parallel.md
  int tensor = 1;
};

// Local SGD (DiLoCo): each logical shard takes inner_steps steps of its own with `optimizer`, whose
// state begins at zeros, from weights that all share; then the mean of what they changed is the
// outer optimizer's gradient.
// docs/decisions/local_sgd.md
struct OuterOptimizerSpec {
  std::string name = "nesterov";  // nesterov | sgd
  double lr = 0.7;
  double momentum = 0.9;
};
struct LocalSgdSpec {
  int64_t inner_steps = 0;  // 0: off, all shards together take every step
  OuterOptimizerSpec outer_optimizer;
};

// A search space's dimension, on the dotted path of a spec field: "optimizer.lr".
struct Dimension {
  enum class Type { kUniform, kLogUniform, kInt, kLogInt, kChoice };
  std::string path;
  Type type = Type::kUniform;
  double low = 0, high = 1;
  std::vector<std::string> choices;  // each a JSON value, for kChoice
};
struct SearchSpec {
  std::string algorithm = "asha";  // random | asha
  std::string metric = "validation/accuracy";
  std::string mode = "max";
  int trials = 16;
  int max_parallel = 0;  // 0: as many as there are slots
  uint64_t seed = 0;
  int reduction_factor = 3;  // asha: eta
  int max_rungs = 3;
  std::vector<Dimension> space;
};

struct DistillSpec {
  std::string teacher;  // "name@version" or "name@alias"
  double temperature = 2;
  double alpha = 0.5;  // weight of the soft-target loss; 1 - alpha of the label loss
};

// Kind batch: what a model says of every row.
struct OutputSpec {
  std::string format = "csv";  // csv | jsonl
  std::string rows = "all";    // all | train | validation | test: of the dataset's split
  int64_t shard_rows = 0;      // rows that one worker does at a time; 0: by the data
  std::string file_name() const { return "predictions." + format; }
};
// Kind batch with a language model: text that goes on from each row.
struct GenerateSpec {
  int64_t max_tokens = 0;  // 0: none
  double temperature = 0;  // 0: the likeliest token
  uint64_t seed = 0;
};
struct BatchSpec {
  OutputSpec output;
  GenerateSpec generate;
};

struct JobSpec {
  JobKind kind = JobKind::kTrain;
  std::string name;  // default: the kind and the data's or the model's name
  std::string queue = "default";
  int priority = 50;  // 0..100, higher first
  DatasetSpec dataset;
  ModelSpec model;
  std::string loss = "cross_entropy";  // or binary_cross_entropy | mse | next_token
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  int64_t batch_size = 64;  // global
  int64_t accumulate = 1;   // pieces in which a shard's rows are computed, to save memory
  bool recompute_activations = false;  // for less memory, one more forward pass
  int64_t epochs = 20;                 // or
  int64_t steps = 0;                   // > 0: overrides epochs
  double clip_norm = 0;                // 0: no gradient clipping
  // f32 | bf16; evaluate and batch: model (as it was trained) | f32 | bf16 | int8.
  std::string precision = "f32";
  uint64_t seed = 0;
  ResourceSpec resources;
  ElasticSpec elastic;
  GradientsSpec gradients;
  ParallelSpec parallel;
  LocalSgdSpec local_sgd;
  std::string collectives = "auto";  // auto | native | mpi | nccl
  CheckpointSpec checkpoint;
  RestartSpec restart;
  std::optional<Duration> deadline;
  std::string register_as;  // spec field `register`; empty: the model is kept but not registered
  std::map<std::string, std::string> labels;
  std::optional<SearchSpec> search;    // kind tune
  std::optional<DistillSpec> distill;  // kind distill
  std::optional<BatchSpec> batch;      // kind batch
  // Kind tune: paths of fields that were not given, and whose defaults are those of what a trial
  // chooses: "model.block" where the space has model.arch. Documents leave them out.
  std::vector<std::string> left_open;

  // What computes a logical shard: a worker, or parallel.tensor of them together. At most so many.
  int max_replicas() const {
    const int replicas = resources.max_workers / (parallel.tensor > 1 ? parallel.tensor : 1);
    return replicas > 1 ? replicas : 1;
  }
  // The number of logical shards, V.
  int shards() const {
    return elastic.logical_shards > 0 ? elastic.logical_shards : max_replicas();
  }
};

// A YAML or JSON document of at most 1 MiB (YAML anchors and aliases are refused).
Result<JobSpec> ParseJobSpec(std::string_view text);
Result<JobSpec> JobSpecFromJson(const nlohmann::json& document);
// What a job that is asked for now must satisfy beyond that, and what parsing leaves out for the
// sake of older journals: metrics that are reported, dimensions that a trial can have, a back-end
// that there is for the device.
Status CheckSubmission(const JobSpec& spec);
// All fields but those left open, defaults filled in; JobSpecFromJson gives an equal spec back.
nlohmann::json JobSpecToJson(const JobSpec& spec);
// The template with a trial's values put on their paths, re-validated; kind train, no search. What
// the template left open follows those values.
Result<JobSpec> ApplyTrial(const JobSpec& tune, const std::map<std::string, std::string>& values);
// Trials at both ends of every dimension, and with each of its choices, by the fields' paths.
std::vector<std::map<std::string, std::string>> TrialCorners(const SearchSpec& search);
// JSON Schema (draft 2020-12) of a spec, for OpenAPI and editors.
nlohmann::json JobSpecSchema();

// A deployment: `lepton deploy`, POST /v1/deployments.
struct DeploymentSpec {
  std::string name;
  std::string model;  // "name@version" or "name@alias"
  int replicas = 1;   // 0..64
  int slots_per_replica = 1;
  int max_batch = 32;                                // rows put together in one forward
  Duration max_wait = std::chrono::milliseconds(2);  // for a batch to fill
  Duration timeout = std::chrono::seconds(10);       // per request
  int max_queue = 1024;                              // rows waiting; beyond it 429
  std::string precision = "model";                   // as it was trained | f32 | bf16 | int8
};
Result<DeploymentSpec> DeploymentSpecFromJson(const nlohmann::json& document);
nlohmann::json DeploymentSpecToJson(const DeploymentSpec& spec);
nlohmann::json DeploymentSpecSchema();

// "digits@3", "digits@prod", "digits" (then reference is empty: the newest).
struct Reference {
  std::string name;
  std::string reference;
};
Result<Reference> ParseReference(std::string_view field, std::string_view text);

// Any YAML or JSON text as JSON, with the limits above. Line numbers in errors.
Result<nlohmann::json> DocumentToJson(std::string_view text);

}  // namespace lepton::spec
