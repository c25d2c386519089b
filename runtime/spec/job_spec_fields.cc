#include "runtime/spec/job_spec_fields.h"

namespace lepton::spec {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
constexpr int64_t kMaxSteps = 1'000'000'000'000;

void Visit(FieldVisitor& v, OptimizerSpec& s) {
  v.Choice("name", s.name, {"sgd", "adam", "adamw"}, "update rule");
  v.Number("lr", s.lr, {.min = 0, .max = 1000, .above_min = true}, "learning rate");
  v.Number("weight_decay", s.weight_decay, {.min = 0, .max = 100},
           "decoupled for adamw (default 0.01), L2 otherwise (default 0)");
  v.Number("momentum", s.momentum, {.min = 0, .max = 1, .below_max = true}, "for sgd");
  v.Number("beta1", s.beta1, {.min = 0, .max = 1, .below_max = true}, "for adam and adamw");
  v.Number("beta2", s.beta2, {.min = 0, .max = 1, .below_max = true}, "for adam and adamw");
  v.Number("epsilon", s.epsilon, {.min = 0, .max = 1, .above_min = true}, "for adam and adamw");
  v.Choice("decay", s.decay, {"all", "matrices"},
           "what decays: all weights, or matrices but not biases and gains");
}

void Visit(FieldVisitor& v, ScheduleSpec& s) {
  v.Choice("name", s.name, {"constant", "cosine", "step"}, "how the learning rate goes");
  v.Integer("warmup_steps", s.warmup_steps, 0, kMaxSteps, "linear from 0 at first");
  v.Integer("step_size", s.step_size, 0, kMaxSteps, "step: multiply by gamma this often");
  v.Number("gamma", s.gamma, {.min = 0, .max = 1, .above_min = true}, "step: the factor");
  v.Number("min_lr_ratio", s.min_lr_ratio, {.min = 0, .max = 1}, "cosine: ends at lr * this");
}

void Visit(FieldVisitor& v, ResourceSpec& s) {
  v.Choice("device", s.device, {"cpu", "cuda"}, "where to compute");
  v.Int("min_workers", s.min_workers, 1, 4096, "start with no fewer ranks");
  v.Int("max_workers", s.max_workers, 1, 4096, "use no more ranks");
  v.Int("slots_per_worker", s.slots_per_worker, 1, 1024, "slots (cores) that each rank takes");
}

void Visit(FieldVisitor& v, LocalSgdSpec& s) {
  v.Integer("inner_steps", s.inner_steps, 0, 1'000'000,
            "each shard takes so many steps alone between two exchanges; 0: all take every step "
            "together");
  v.BeginObject("outer_optimizer", "what follows from the mean of the shards' changes", "name");
  v.Choice("name", s.outer_optimizer.name, {"nesterov", "sgd"}, "update rule");
  v.Number("lr", s.outer_optimizer.lr, {.min = 0, .max = 1000, .above_min = true},
           "1 with momentum 0: the shards' mean weights");
  v.Number("momentum", s.outer_optimizer.momentum, {.min = 0, .max = 1, .below_max = true},
           "over rounds");
  v.EndObject();
}

void Visit(FieldVisitor& v, CheckpointSpec& s) {
  v.Integer("every_steps", s.every_steps, 1, kMaxSteps,
            "how often to save; with local_sgd at the next round's end");
  v.Int("keep_last", s.keep_last, 1, 1000, "newest checkpoints to keep");
  v.BeginObject("keep_best", "also keep the best by a metric");
  v.Text("metric", s.keep_best.metric, "which metric");
  v.Choice("mode", s.keep_best.mode, {"min", "max"},
           "which way is better; if not given, min of loss, mse, perplexity, seconds and "
           "grad_norm, max of others");
  v.Int("count", s.keep_best.count, 0, 1000,
        "how many; with 0 a train's checkpoints are not evaluated, which takes long with much "
        "validation data");
  v.EndObject();
}

void Visit(FieldVisitor& v, RestartSpec& s) {
  v.Int("max", s.max, 0, 1000, "restarts before the job fails, counted apart by cause");
  v.Time("backoff", s.backoff, milliseconds(0), hours(1), "before the first; doubles, at most 30s");
  const size_t size =
      v.BeginList("log_policies", s.log_policies.size(), "what to do when a log line matches");
  s.log_policies.resize(size);
  for (size_t i = 0; i < size; ++i) {
    v.BeginItem(i);
    v.Text("pattern", s.log_policies[i].pattern, "regular expression (Perl's)");
    v.Choice("action", s.log_policies[i].action, {"exclude_worker", "fail_job"}, "then");
    v.EndItem();
  }
  v.EndList();
}

void Visit(FieldVisitor& v, SearchSpec& s) {
  v.Choice("algorithm", s.algorithm, {"random", "asha"}, "how to search");
  v.Text("metric", s.metric, "what to optimise");
  v.Choice("mode", s.mode, {"min", "max"},
           "which way is better; if not given, min of loss, mse, perplexity, seconds and "
           "grad_norm, max of others");
  v.Int("trials", s.trials, 1, 100'000, "configurations to try");
  v.Int("max_parallel", s.max_parallel, 0, 100'000, "at once; 0: as many as fit");
  v.Seed("seed", s.seed, "of the suggestions");
  v.Int("reduction_factor", s.reduction_factor, 2, 16, "asha: one in so many is promoted");
  v.Int("max_rungs", s.max_rungs, 1, 10, "asha: stages of growing budget");
  v.Space("space", s.space, "the dimensions, by the path of the field that they set");
}

void Visit(FieldVisitor& v, BatchSpec& s) {
  v.BeginObject("output", "kind batch: the predictions", "format");
  v.Choice("format", s.output.format, {"csv", "jsonl"}, "a row or a line for each row of the data");
  v.Choice("rows", s.output.rows, {"all", "train", "validation", "test"},
           "of which part of the dataset's split");
  v.Integer("shard_rows", s.output.shard_rows, 0, 1 << 24,
            "rows that a worker does at a time, and does again if it dies meanwhile, in whole "
            "blocks of at most 256; 0: by the data; does not show in the result");
  v.EndObject();
  v.BeginObject("generate", "kind batch, language models: text that goes on from each row");
  v.Integer("max_tokens", s.generate.max_tokens, 0, 1 << 20, "at most so many; 0: none");
  v.Number("temperature", s.generate.temperature, {.min = 0, .max = 100},
           "0: always the likeliest token; 1: drawn as likely as the model says");
  v.Seed("seed", s.generate.seed, "of the draws");
  v.EndObject();
}

}  // namespace

void Visit(FieldVisitor& v, JobSpec& s, std::optional<JobKind> kind) {
  std::string kind_name = kind ? std::string(JobKindName(*kind)) : "";
  v.Choice("kind", kind_name, {"train", "tune", "distill", "evaluate", "batch"}, "what to do");
  v.Text("name", s.name, "for people; need not be unique");
  v.Text("queue", s.queue, "where to wait");
  v.Int("priority", s.priority, 0, 100, "higher first; first come, first served within one");
  v.BeginObject("dataset", "the data", "name");
  Visit(v, s.dataset);
  v.EndObject();
  v.BeginObject("model", "what to train or evaluate", "from");
  Visit(v, s.model, /*all=*/!kind);
  v.EndObject();
  v.Choice("loss", s.loss, {"cross_entropy", "binary_cross_entropy", "mse", "next_token"},
           "what to minimise; next_token: of a language model");
  v.BeginObject("optimizer", "how weights are updated", "name");
  Visit(v, s.optimizer);
  v.EndObject();
  v.BeginObject("schedule", "of the learning rate", "name");
  Visit(v, s.schedule);
  v.EndObject();
  v.Integer("batch_size", s.batch_size, 1, 1 << 24, "rows per step over all workers");
  v.Integer("accumulate", s.accumulate, 1, 4096,
            "compute a shard's rows in so many pieces, one after another, to need less memory");
  v.Bool("recompute_activations", s.recompute_activations,
         "keep only what flows between layers for the backward pass and compute the rest again: "
         "less memory, one more forward pass, the same bits");
  v.Integer("epochs", s.epochs, 1, 1'000'000, "passes over the train part");
  v.Integer("steps", s.steps, 0, kMaxSteps, "if above 0, train for so many steps instead");
  v.Number("clip_norm", s.clip_norm, {.min = 0, .max = 1e9}, "of the whole gradient; 0: none");
  if (kind && *kind != JobKind::kEvaluate && *kind != JobKind::kBatch) {
    v.Choice("precision", s.precision, {"f32", "bf16"},
             "of products and convolutions; weights stay f32");
  } else {
    v.Choice(
        "precision", s.precision, {"f32", "bf16", "model", "int8"},
        "of products and convolutions; weights stay f32; model (as it was trained) and int8: kinds "
        "evaluate and batch only");
  }
  v.Seed("seed", s.seed, "of initial weights, order of rows and dropout");
  v.BeginObject("resources", "what the job needs");
  Visit(v, s.resources);
  v.EndObject();
  v.BeginObject("elastic", "how work is divided and how fast it recovers");
  v.Int("logical_shards", s.elastic.logical_shards, 0, 4096,
        "parts of every batch, whatever the number of workers; 0: max_workers / parallel.tensor");
  v.Time("recovery_budget", s.elastic.recovery_budget, milliseconds(100), hours(1),
         "how long a rank of the gang may be silent or out of reach");
  v.Choice("recovery", s.elastic.recovery, {"in_place", "restart"},
           "a gang that loses a rank goes on with what the others hold, or starts again from its "
           "newest checkpoint (kind batch: from the shards that are done)");
  v.EndObject();
  v.BeginObject("gradients", "how gradients travel between workers", "compression");
  v.Choice("compression", s.gradients.compression, {"none", "bf16", "low_rank"},
           "bf16: half the bytes, every sum rounded; low_rank: matrices as two thin factors, what "
           "is left out comes with the next step (PowerSGD)");
  v.Int("rank", s.gradients.rank, 1, 256, "low_rank: of the factors");
  v.Integer("bucket_bytes", s.gradients.bucket_bytes, 0, int64_t{1} << 32,
            "parameters of at least so many bytes travel together, while the backward pass goes "
            "on; 0: as many as the first steps in a group show to be fastest; does not show in the "
            "result");
  v.EndObject();
  v.BeginObject("parallel", "what each worker holds of the training state");
  v.Int(
      "zero", s.parallel.zero, 0, 3,
      "ZeRO's stage. 0: every worker holds everything; 1: its share of the optimizer's state and a "
      "mirror of its buddy's; 2: of the gradients too; 3: and of the weights, which come from the "
      "others layer by layer; does not show in the result");
  v.Int("tensor", s.parallel.tensor, 1, 64,
        "so many neighbours in rank share each layer of a transformer (its heads and the MLP's "
        "columns), and compute a logical shard together; recovery is by restart then, and "
        "min_workers is max_workers");
  v.EndObject();
  v.BeginObject("local_sgd", "many steps between two exchanges, for slow links (DiLoCo)");
  Visit(v, s.local_sgd);
  v.EndObject();
  v.Choice("collectives", s.collectives, {"auto", "native", "mpi", "nccl"}, "back-end");
  v.BeginObject("checkpoint", "what is kept against a loss");
  Visit(v, s.checkpoint);
  v.EndObject();
  v.BeginObject("restart", "what happens after a failure");
  Visit(v, s.restart);
  v.EndObject();
  v.OptionalTime("deadline", s.deadline, "the job fails if it is not done by then");
  v.Text("register", s.register_as, "publish the model as a new version of this name");
  v.TextMap("labels", s.labels, "for people and filters");
  if (!kind || *kind == JobKind::kTune) {
    SearchSpec search = s.search.value_or(SearchSpec{});
    v.BeginObject("search", "kind tune: what to try");
    Visit(v, search);
    v.EndObject();
    s.search = std::move(search);
  }
  if (!kind || *kind == JobKind::kDistill) {
    DistillSpec distill = s.distill.value_or(DistillSpec{});
    v.Text("teacher", distill.teacher,
           "kind distill: name@version, name@alias, or file:///... of a folder that a run left");
    v.Number("temperature", distill.temperature, {.min = 0, .max = 1000, .above_min = true},
             "kind distill: softens both distributions");
    v.Number("alpha", distill.alpha, {.min = 0, .max = 1},
             "kind distill: weight of the soft targets; 1 - alpha of the labels");
    s.distill = std::move(distill);
  }
  if (!kind || *kind == JobKind::kBatch) {
    BatchSpec batch = s.batch.value_or(BatchSpec{});
    Visit(v, batch);
    s.batch = std::move(batch);
  }
}

void Visit(FieldVisitor& v, DeploymentSpec& s) {
  v.Text("name", s.name, "the deployment's name, in its URLs");
  v.Text("model", s.model, "name@version or name@alias");
  v.Int("replicas", s.replicas, 0, 64, "how many copies serve");
  v.Int("slots_per_replica", s.slots_per_replica, 0, 1024,
        "slots (cores) that each takes; 0 shares a worker without counting");
  v.Int("max_batch", s.max_batch, 1, 65536, "rows put together in one forward pass");
  v.Time("max_wait", s.max_wait, milliseconds(0), std::chrono::seconds(10),
         "at most, for a batch to fill");
  v.Time("timeout", s.timeout, milliseconds(1), hours(1), "per request");
  v.Int("max_queue", s.max_queue, 1, 1'000'000, "rows that may wait; beyond it 429");
  v.Choice("precision", s.precision, {"model", "f32", "bf16", "int8"},
           "of products and convolutions; model: as it was trained");
}

}  // namespace lepton::spec
