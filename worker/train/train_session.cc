#include "worker/train/train_session.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <set>

#include "storage/checkpoints/checkpoint.h"
#include "worker/train/evaluation.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

// What keeps a dataset from having exactly the model's features and classes; OK when nothing does.
Status CheckSameColumns(const storage::ModelManifest& model, const StoredDataset& dataset,
                        const spec::JobSpec& spec) {
  const std::set<std::string> features(model.feature_names.begin(), model.feature_names.end());
  for (const std::string& feature : features) {
    if (dataset.table.Find(feature) != nullptr) continue;
    return InvalidArgument(
        fmt::format("its feature \"{}\" is not a column of the dataset", feature));
  }
  for (const auto& column : dataset.manifest.columns) {
    if (column.name != spec.dataset.label && !features.contains(column.name)) {
      return InvalidArgument(fmt::format("it does not have the feature \"{}\"", column.name));
    }
    if (column.name != spec.dataset.label || spec.loss == "mse") continue;
    const std::set<std::string> known(model.classes.begin(), model.classes.end());
    const std::set<std::string> present(column.classes.begin(), column.classes.end());
    for (const std::string& text : present) {
      if (!known.contains(text)) {
        return InvalidArgument(fmt::format("it does not have the class \"{}\"", text));
      }
    }
    for (const std::string& text : known) {
      if (!present.contains(text)) {
        return InvalidArgument(fmt::format("its class \"{}\" is not in the dataset", text));
      }
    }
  }
  return Status::Ok();
}

Status Resume(const storage::ObjectStore& objects, const storage::Digest& digest,
              TrainSession& session, uint64_t seed) {
  LEPTON_ASSIGN_OR_RETURN(const storage::LoadedCheckpoint checkpoint,
                          storage::ReadCheckpoint(objects, digest));
  if (checkpoint.info.seed != seed) {
    return FailedPrecondition(fmt::format("it is of a run with seed {}, but this one's is {}",
                                          checkpoint.info.seed, seed));
  }
  const std::pair<const char*, std::span<float>> states[] = {
      {"weights", session.program->weights()}, {"optimizer", session.program->optimizer_state()}};
  for (const auto& [name, state] : states) {
    const auto found = checkpoint.tensors.find(name);
    const size_t size = found == checkpoint.tensors.end() ? 0 : found->second.size();
    if (size != state.size()) {
      return FailedPrecondition(
          fmt::format("it has {} values of {}, but the model has {}", size, name, state.size()));
    }
    if (size > 0) std::copy(found->second.begin(), found->second.end(), state.begin());
  }
  session.first_step = checkpoint.info.step;
  return Status::Ok();
}

Status CheckRunnable(const spec::JobSpec& spec, const TrainSession& session) {
  if (spec.resources.device != "cpu") {
    return InvalidArgument(fmt::format("resources.device: {} cannot train in this version; use cpu",
                                       spec.resources.device));
  }
  if (session.data.train.rows() == 0) {
    return InvalidArgument(fmt::format("dataset.split.train: {} of {} rows leaves none to train on",
                                       spec.dataset.split.train, session.dataset.table.rows));
  }
  return Status::Ok();
}

// What a follower of the task's log wants to know before the first step.
void LogStart(const wire::StartTask& start, const spec::JobSpec& spec,
              const TrainSession& session) {
  if (start.rank() != 0) return;
  LOG(INFO) << fmt::format(
      "{} rows to train on, {} for validation, {} for test; {} features; {} with {} parameters, "
      "{}; "
      "{} rank{}, {} logical shard{}; steps {} to {}",
      session.data.train.rows(), session.data.validation.rows(), session.data.test.rows(),
      session.data.features(), spec.model.arch, session.program->weights().size(), spec.precision,
      start.size(), start.size() == 1 ? "" : "s", LogicalShards(spec),
      LogicalShards(spec) == 1 ? "" : "s", session.first_step, session.stop_step);
}

std::string MetricsText(const Metrics& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics) {
    text += fmt::format("{}{} {:.5g}", text.empty() ? "" : ", ", name, value);
  }
  return text;
}

storage::ModelManifest MakeManifest(TaskContext& context, const TrainSession& session,
                                    const TrainOutcome& outcome, Metrics metrics) {
  const spec::JobSpec& spec = context.spec();
  storage::ModelManifest manifest;
  manifest.model_spec_json = ModelSpecToText(spec);
  manifest.loss = spec.loss;
  manifest.precision = spec.precision;
  manifest.feature_names = session.data.feature_names;
  manifest.mean = session.data.mean;
  manifest.scale = session.data.scale;
  manifest.label_name = session.data.label_name;
  manifest.classes = session.data.classes;
  manifest.metrics = std::move(metrics);
  manifest.job_id = context.start().job_id();
  manifest.dataset = context.start().dataset_manifest();
  manifest.dataset_name = session.dataset.manifest.name;
  manifest.teacher = context.start().teacher_manifest();
  manifest.steps = static_cast<int64_t>(outcome.steps);
  return manifest;
}

}  // namespace

Result<std::unique_ptr<nn::TrainingProgram>> BuildProgram(const spec::JobSpec& spec,
                                                          const PreparedData& data,
                                                          uint64_t total_steps, bool distill) {
  nn::TrainingProgram::Options options;
  options.model = spec.model;
  options.loss = spec.loss;
  options.optimizer = spec.optimizer;
  options.schedule = spec.schedule;
  options.total_steps = static_cast<int64_t>(total_steps);
  options.clip_norm = spec.clip_norm;
  options.precision = spec.precision;
  options.seed = spec.seed;
  options.distill = distill && spec.distill.has_value();
  if (options.distill) {
    options.distill_options = {spec.distill->temperature, spec.distill->alpha};
  }
  return nn::TrainingProgram::Build(
      nn::Signature::Features(data.features(), data.outputs(spec.loss)), options);
}

namespace {

// The model whose features, normalisation and classes the data takes: the teacher's, or those of
// the model that training starts from if it saw the same columns (its weights were fitted to them).
Result<const storage::ModelManifest*> ChooseLike(const spec::JobSpec& spec,
                                                 const StoredDataset& dataset,
                                                 const StoredModel* teacher,
                                                 const std::optional<StoredModel>& from) {
  if (teacher != nullptr) {
    LEPTON_RETURN_IF_ERROR(
        CheckSameColumns(teacher->manifest, dataset, spec).WithContext("teacher"));
    return &teacher->manifest;
  }
  const bool alike = from && from->manifest.loss == spec.loss &&
                     CheckSameColumns(from->manifest, dataset, spec).ok();
  return alike ? &from->manifest : nullptr;
}

}  // namespace

Result<TrainSession> OpenSession(TaskContext& context, const StoredModel* teacher) {
  const wire::StartTask& start = context.start();
  const spec::JobSpec& spec = context.spec();
  TrainSession session;
  Result<StoredDataset> dataset = LoadDataset(context.objects(), start.dataset_manifest());
  if (!dataset.ok()) return dataset.status().WithContext("dataset");
  session.dataset = *std::move(dataset);

  std::optional<StoredModel> from;
  if (!start.model_manifest().empty()) {
    Result<StoredModel> model = LoadModel(context.objects(), start.model_manifest());
    if (!model.ok()) return model.status().WithContext("model.from");
    from = *std::move(model);
  }
  LEPTON_ASSIGN_OR_RETURN(const storage::ModelManifest* const like,
                          ChooseLike(spec, session.dataset, teacher, from));
  LEPTON_ASSIGN_OR_RETURN(session.data, PrepareData(session.dataset.manifest, session.dataset.table,
                                                    spec.dataset, spec.loss, like));
  LEPTON_RETURN_IF_ERROR(CheckRunnable(spec, session));
  session.total_steps = TotalSteps(spec, session.data.train.rows());
  LEPTON_ASSIGN_OR_RETURN(session.stop_step, StopStep(spec, session.data.train.rows()));
  LEPTON_ASSIGN_OR_RETURN(session.program,
                          BuildProgram(spec, session.data, session.total_steps, true));
  if (!start.resume_checkpoint().empty()) {
    LEPTON_RETURN_IF_ERROR(Resume(context.objects(), start.resume_checkpoint(), session, spec.seed)
                               .WithContext("checkpoint " + start.resume_checkpoint()));
  } else if (from) {
    LEPTON_RETURN_IF_ERROR(
        CopyWeights(*from, session.program->parameters(), session.program->weights())
            .WithContext("model.from"));
  }
  LogStart(start, spec, session);
  return session;
}

Status FinishSession(TaskContext& context, const TrainSession& session, const TrainOutcome& outcome,
                     const Metrics& metrics, collectives::Communicator& gang) {
  const DataPart& test = session.data.test;
  LEPTON_ASSIGN_OR_RETURN(const Evaluation evaluation,
                          Evaluate(*session.program, test, test.rows(), gang));
  Metrics all = outcome.metrics;
  evaluation.AddTo("test", all);
  all.insert(metrics.begin(), metrics.end());

  wire::TaskFinished result;
  result.set_steps(outcome.steps);
  result.set_last_checkpoint(outcome.last_checkpoint);
  if (gang.rank() == 0) {
    const Result<WrittenModel> written =
        WriteModel(context.objects(), MakeManifest(context, session, outcome, all),
                   session.program->parameters(), session.program->weights());
    if (!written.ok()) return AbortGang(gang, written.status().WithContext("storing the model"));
    result.set_model_manifest(written->manifest);
    result.add_objects(written->weights);
    result.add_objects(written->manifest);
    LOG(INFO) << fmt::format("done after step {}: {}", outcome.steps, MetricsText(all));
  }
  // Times differ from run to run, so they are not part of the model's manifest.
  all["seconds"] = outcome.seconds;
  all["samples_per_second"] = outcome.samples_per_second;
  result.mutable_metrics()->insert(all.begin(), all.end());
  context.SetResult(result);
  // No rank leaves while rank 0 may still need the gang; the work is done, so a peer that is gone
  // does not matter.
  if (gang.size() > 1) (void)gang.Barrier();
  return Status::Ok();
}

void TaskObserver::Progress(const TrainProgress& progress) {
  wire::TaskProgress report;
  report.set_step(progress.step);
  report.set_total_steps(session_.stop_step);
  report.set_epoch(progress.epoch);
  report.set_samples_per_second(progress.samples_per_second);
  report.mutable_metrics()->insert(progress.metrics.begin(), progress.metrics.end());
  context_.ReportProgress(report);
  // An evaluation is worth a line in the log; a mere tick is not.
  if (progress.metrics.contains("train/accuracy") || progress.metrics.contains("train/mse")) {
    LOG(INFO) << fmt::format("step {} of {}, epoch {:.2f}: {}", progress.step, session_.stop_step,
                             progress.epoch, MetricsText(progress.metrics));
  }
}

Result<storage::Digest> TaskObserver::Checkpoint(uint64_t step, const Metrics& metrics) {
  storage::CheckpointInfo info;
  info.job_id = context_.start().job_id();
  info.step = step;
  info.seed = context_.spec().seed;
  info.metrics = metrics;
  const std::span<float> weights = session_.program->weights();
  const std::span<float> optimizer = session_.program->optimizer_state();
  std::vector<storage::CheckpointTensor> tensors = {
      {"weights", {static_cast<int64_t>(weights.size())}, weights}};
  if (!optimizer.empty()) {
    tensors.push_back({"optimizer", {static_cast<int64_t>(optimizer.size())}, optimizer});
  }
  LEPTON_ASSIGN_OR_RETURN(const storage::WrittenCheckpoint written,
                          storage::WriteCheckpoint(context_.objects(), info, tensors));
  wire::TaskCheckpoint report;
  report.set_step(step);
  report.set_manifest(written.manifest);
  report.mutable_metrics()->insert(metrics.begin(), metrics.end());
  report.add_objects(written.data);
  context_.ReportCheckpoint(report);
  return written.manifest;
}

}  // namespace lepton::worker
