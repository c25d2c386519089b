#include "worker/train/train_session.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/nn/divided_model.h"
#include "storage/checkpoints/checkpoint.h"
#include "worker/train/evaluation.h"
#include "worker/train/model_files.h"
#include "worker/train/resume.h"
#include "worker/train/run_length.h"
#include "worker/train/start_model.h"

namespace lepton::worker {
namespace {

constexpr Duration kPhaseEvery = std::chrono::milliseconds(200);

double Milliseconds(MonotonicTime from, MonotonicTime to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// What keeps these from being the model's classes; OK when nothing does.
Status CheckSameClasses(const std::vector<std::string>& model,
                        const std::vector<std::string>& data) {
  const std::set<std::string> known(model.begin(), model.end());
  const std::set<std::string> present(data.begin(), data.end());
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
  return Status::Ok();
}

// The same of a table's columns, when they are what the model takes.
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
  }
  return Status::Ok();
}

std::string InputKind(const StoredDataset& dataset, const spec::DatasetSpec& spec) {
  switch (dataset.manifest.kind) {
    case storage::DatasetKind::kTable:
      return !spec.text.empty() ? "tokens" : spec.pixels() ? "images" : "features";
    case storage::DatasetKind::kImages:
      return "images";
    default:
      return "tokens";
  }
}

// What keeps a dataset from being exactly what the model was made for; OK when nothing does.
Status CheckSameData(const storage::ModelManifest& model, const StoredDataset& dataset,
                     const spec::JobSpec& spec) {
  const std::string kind = InputKind(dataset, spec.dataset);
  if (model.input.kind != kind) {
    return InvalidArgument(fmt::format("it takes {}, but the data is {}", model.input.kind, kind));
  }
  if (!model.feature_names.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckSameColumns(model, dataset, spec));
  }
  if (spec.loss != "cross_entropy" && spec.loss != "binary_cross_entropy") return Status::Ok();
  if (dataset.manifest.kind == storage::DatasetKind::kImages) {
    return CheckSameClasses(model.classes, dataset.manifest.classes);
  }
  const auto* label = dataset.manifest.Find(spec.dataset.label);
  return label == nullptr ? Status::Ok() : CheckSameClasses(model.classes, label->classes);
}

Status CheckRunnable(const spec::JobSpec& spec, const TrainSession& session) {
  if (session.data.train->rows() == 0) {
    return InvalidArgument(fmt::format("dataset.split.train: {} of {} rows leaves none to train on",
                                       spec.dataset.split.train, session.dataset.manifest.rows));
  }
  return Status::Ok();
}

std::string ShapeText(const nn::DataShape& shape) {
  switch (shape.kind) {
    case nn::DataShape::Kind::kImages:
      return fmt::format("pictures of {} x {} x {}", shape.channels, shape.height, shape.width);
    case nn::DataShape::Kind::kTokens:
      return fmt::format("up to {} tokens of {}", shape.context, shape.vocabulary);
    case nn::DataShape::Kind::kFeatures:
      break;
  }
  return fmt::format("{} features", shape.features);
}

// What a follower of the task's log wants to know before the first step.
void LogStart(const wire::StartTask& start, const spec::JobSpec& spec,
              const TrainSession& session) {
  if (start.rank() != 0) return;
  const PreparedData& data = session.data;
  LOG(INFO) << fmt::format(
      "{} {} to train on, {} for validation, {} for test; {}; {} with {} parameters, {}; {} "
      "rank{}, {} logical shard{}; steps {} to {}",
      data.train->rows(), data.train->predictions() > 1 ? "texts" : "rows", data.validation->rows(),
      data.test->rows(), ShapeText(data.shape), session.model.arch,
      nn::ElementsOf(nn::WholeParameters(session.program->parameters())), spec.precision,
      start.size(), start.size() == 1 ? "" : "s", spec.shards(), spec.shards() == 1 ? "" : "s",
      session.first_step, session.stop_step);
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
  manifest.model_spec_json = ModelSpecToText(session.model);
  manifest.loss = spec.loss;
  manifest.precision = spec.precision;
  manifest.files = session.files;
  manifest.input = session.data.input;
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

TaskData::TaskData(TaskContext& context)
    : derived_(context.objects(), [&context] { return context.stop_requested(); }),
      tools_{context.objects(), derived_,
             [this, &context](std::string_view phase, uint64_t done, uint64_t total) {
               const MonotonicTime now = RealClock().Now();
               if (now - reported_ < kPhaseEvery) return;
               reported_ = now;
               wire::TaskProgress report;
               report.set_phase(std::string(phase));
               if (total > 0) {
                 report.set_phase_done(static_cast<double>(done) / static_cast<double>(total));
               }
               context.ReportProgress(report);
             }} {}

// Whether a rank reads the same weights several times while all workers are there: then it pays to
// keep them packed.
bool ReadsWeightsAgain(const spec::JobSpec& spec) {
  return spec.shards() * spec.accumulate > spec.max_replicas();
}

Result<std::unique_ptr<nn::TrainingProgram>> BuildProgram(const spec::JobSpec& spec,
                                                          const TrainSession& session, bool distill,
                                                          int rank) {
  nn::TrainingProgram::Options options;
  options.model = session.model;
  options.loss = NnLoss(spec.loss);
  options.optimizer = spec.optimizer;
  options.schedule = spec.schedule;
  options.total_steps = static_cast<int64_t>(session.total_steps);
  options.clip_norm = spec.clip_norm;
  options.precision = spec.precision;
  options.recompute_activations = spec.recompute_activations;
  options.seed = spec.seed;
  options.keeps_optimizer_state = spec.parallel.zero == 0;
  options.keeps_gradients = spec.parallel.zero < 2;
  options.keeps_packs = spec.parallel.zero < 2 && ReadsWeightsAgain(spec);
  options.keeps_weights = spec.parallel.zero < 3;
  options.tensor = TensorPlaceOf(rank, spec.parallel.tensor);
  options.backend = session.device.get();
  options.distill = distill && spec.distill.has_value();
  if (options.distill) {
    options.distill_options = {spec.distill->temperature, spec.distill->alpha};
  }
  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature,
                          nn::MakeSignature(session.model, session.data.shape));
  return nn::TrainingProgram::Build(signature, options);
}

namespace {

// The model whose features, normalisation and classes the data takes: the teacher's, or those of
// the model that training starts from if it saw the same columns (its weights were fitted to them).
Result<const storage::ModelManifest*> ChooseLike(const spec::JobSpec& spec,
                                                 const StoredDataset& dataset,
                                                 const StoredModel* teacher,
                                                 const std::optional<StoredModel>& from) {
  if (teacher != nullptr) {
    LEPTON_RETURN_IF_ERROR(CheckSameData(teacher->manifest, dataset, spec).WithContext("teacher"));
    return &teacher->manifest;
  }
  const bool alike =
      from && from->manifest.loss == spec.loss && CheckSameData(from->manifest, dataset, spec).ok();
  return alike ? &from->manifest : nullptr;
}

}  // namespace

Result<TrainSession> OpenSession(TaskContext& context, const StoredModel* teacher) {
  const wire::StartTask& start = context.start();
  const spec::JobSpec& spec = context.spec();
  TrainSession session;
  LEPTON_ASSIGN_OR_RETURN(session.device, OpenDevice(spec.resources.device));
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
  const spec::ModelSpec model = ChooseModel(spec.model, from);
  const spec::DatasetSpec wanted = session.dataset.manifest.kind == storage::DatasetKind::kImages
                                       ? ChoosePictures(spec.dataset, from)
                                       : spec.dataset;
  TaskData data(context);
  LEPTON_ASSIGN_OR_RETURN(session.data, PrepareData(session.dataset,
                                                    {.dataset = wanted,
                                                     .loss = spec.loss,
                                                     .model = &model,
                                                     .like = like,
                                                     .tokenizer = start.tokenizer(),
                                                     .seed = spec.seed},
                                                    data.tools()));
  LEPTON_RETURN_IF_ERROR(CheckRunnable(spec, session));
  LEPTON_ASSIGN_OR_RETURN(session.model, nn::ResolveModel(model, session.data.shape));
  session.total_steps = TotalSteps(spec, session.data.train->rows());
  LEPTON_ASSIGN_OR_RETURN(session.stop_step, StopStep(spec, session.data.train->rows()));
  LEPTON_ASSIGN_OR_RETURN(session.program, BuildProgram(spec, session, /*distill=*/true,
                                                        static_cast<int>(start.rank())));
  session.outer = MakeOuterOptimizer(spec, *session.program);
  if (!start.resume_checkpoint().empty()) {
    LEPTON_RETURN_IF_ERROR(Resume(context.objects(), start.resume_checkpoint(), spec, session)
                               .WithContext("checkpoint " + start.resume_checkpoint()));
  } else if (from) {
    LEPTON_RETURN_IF_ERROR(StartFrom(*from, session.data, start.rank() == 0, *session.program)
                               .WithContext("model.from"));
  }
  if (from && session.model.arch == from->model.arch) session.files = KeptFiles(*from);
  LogStart(start, spec, session);
  return session;
}

namespace {

void AddModel(const TrainSession& session, const WrittenModel& model, wire::TaskFinished& result) {
  result.set_model_manifest(model.manifest);
  result.add_objects(model.weights);
  for (const auto& [name, digest] : session.files) result.add_objects(digest);
  result.add_objects(model.manifest);
  if (const auto& tokenizer = session.data.input.tokenizer; storage::IsDigest(tokenizer)) {
    result.add_objects(tokenizer);
  }
}

}  // namespace

Status FinishSession(TaskContext& context, const TrainSession& session, const TrainOutcome& outcome,
                     const Metrics& metrics, collectives::Communicator& gang, TensorGang* tensor) {
  const Examples& test = *session.data.test;
  LEPTON_ASSIGN_OR_RETURN(
      const Evaluation evaluation,
      Evaluate(*session.program, test, test.rows(), tensor != nullptr ? tensor->data() : gang));
  Metrics all = outcome.metrics;
  evaluation.AddTo("test", all);
  all.insert(metrics.begin(), metrics.end());

  wire::TaskFinished result;
  result.set_steps(outcome.steps);
  result.set_last_checkpoint(outcome.last_checkpoint);
  const bool leader = gang.rank() == 0;
  const bool gives = tensor != nullptr && tensor->first_replica();
  if (leader || gives || session.program->weights_begin() > 0) {
    const Result<WrittenModel> written =
        WriteModel(leader ? &context.objects() : nullptr,
                   MakeManifest(context, session, outcome, all), *session.program);
    if (!written.ok()) return AbortGang(gang, written.status().WithContext("storing the model"));
    if (leader) AddModel(session, *written, result);
    if (leader) LOG(INFO) << fmt::format("done after step {}: {}", outcome.steps, MetricsText(all));
  }
  // Times differ from run to run, so they are not part of the model's manifest.
  all["seconds"] = outcome.seconds;
  all["samples_per_second"] = outcome.samples_per_second;
  if (context.spec().parallel.zero > 0 || tensor != nullptr) {
    all["rank0/weights_bytes"] = static_cast<double>(outcome.bytes.weights);
    all["rank0/gradients_bytes"] = static_cast<double>(outcome.bytes.gradients);
    all["rank0/optimizer_bytes"] = static_cast<double>(outcome.bytes.optimizer);
    all["rank0/arena_bytes"] = static_cast<double>(outcome.bytes.arena);
    all["rank0/packs_bytes"] = static_cast<double>(outcome.bytes.packs);
    all["rank0/visiting_bytes"] = static_cast<double>(outcome.bytes.visiting);
  }
  result.mutable_metrics()->insert(all.begin(), all.end());
  context.SetResult(result);
  // No rank leaves while rank 0 may still need the gang. Rank 0's work is done, so a peer that is
  // gone does not matter to it; the others of an elastic gang take its place if it is gone.
  if (gang.size() == 1) return Status::Ok();
  const Status met = gang.Barrier();
  return gang.rank() > 0 && context.membership() != nullptr ? met : Status::Ok();
}

void TaskObserver::Progress(const TrainProgress& progress) {
  wire::TaskProgress report;
  report.set_step(progress.step);
  report.set_total_steps(session_.stop_step);
  report.set_epoch(progress.epoch);
  report.set_samples_per_second(progress.samples_per_second);
  if (progress.samples) {
    report.mutable_samples()->set_rows(progress.samples->rows);
    report.mutable_samples()->set_ids(progress.samples->ids);
  }
  report.mutable_metrics()->insert(progress.metrics.begin(), progress.metrics.end());
  context_.ReportProgress(report);
  // An evaluation is worth a line in the log; a mere tick is not.
  if (progress.metrics.contains("train/accuracy") || progress.metrics.contains("train/mse")) {
    LOG(INFO) << fmt::format("step {} of {}, epoch {:.2f}: {}", progress.step, session_.stop_step,
                             progress.epoch, MetricsText(progress.metrics));
  }
}

void TaskObserver::Diverged(const Divergence& found) {
  diverged_ = true;
  ReportDivergence(context_, found);
}

void ReportDivergence(TaskContext& context, const Divergence& found) {
  wire::TaskFinished result;
  wire::TaskDiverged& diverged = *result.mutable_diverged();
  diverged.set_step(found.step);
  diverged.set_tensor(found.tensor);
  diverged.set_agreeing(static_cast<uint32_t>(found.agreeing));
  diverged.set_ranks(static_cast<uint32_t>(found.ranks));
  context.SetResult(result);
}

storage::CheckpointInfo TaskObserver::InfoOf(const CheckpointPoint& point) const {
  storage::CheckpointInfo info;
  info.job_id = context_.start().job_id();
  info.step = point.step;
  info.seed = context_.spec().seed;
  info.metrics = point.metrics;
  if (point.samples) info.samples = {point.samples->rows, point.samples->ids};
  info.epoch_loss = {point.epoch_loss.sum, point.epoch_loss.count};
  return info;
}

Result<storage::Digest> TaskObserver::WriteManifest(storage::CheckpointInfo info,
                                                    std::vector<storage::Digest> slices,
                                                    bool of_others) {
  info.slices = std::move(slices);
  LEPTON_ASSIGN_OR_RETURN(const storage::Digest manifest,
                          storage::WriteCheckpointManifest(context_.objects(), info));
  if (diverged_) return DataLoss("this rank's parameters are not those of its peers");
  wire::TaskCheckpoint report;
  report.set_step(info.step);
  report.set_manifest(manifest);
  report.mutable_metrics()->insert(info.metrics.begin(), info.metrics.end());
  auto& objects = of_others ? *report.mutable_slices() : *report.mutable_objects();
  objects.Assign(info.slices.begin(), info.slices.end());
  context_.ReportCheckpoint(report);
  return manifest;
}

TrainObserver::CheckpointDone TaskObserver::BeginObject(const storage::CheckpointInfo& info,
                                                        int number, const Slices& slices,
                                                        Then then) {
  const auto done = std::make_shared<std::promise<Result<storage::Digest>>>();
  const MonotonicTime begin = RealClock().Now();
  Result<std::string> copy = storage::SerializeSlices(info, static_cast<size_t>(number), slices);
  const MonotonicTime copied = RealClock().Now();
  if (!copy.ok()) {
    done->set_value(copy.status());
    return done->get_future();
  }
  const auto bytes = std::make_shared<const std::string>(*std::move(copy));
  writer_.Submit([this, done, info, number, begin, copied, bytes, then = std::move(then)] {
    faults_.Writing();
    Result<storage::Digest> object = context_.objects().Put(*bytes);
    if (object.ok()) object = then(*std::move(object));
    LOG_IF(INFO, object.ok()) << fmt::format(
        "checkpoint of step {}, slice {}: {} bytes, copied in {:.1f} ms, durable after {:.1f} ms",
        info.step, number, bytes->size(), Milliseconds(begin, copied),
        Milliseconds(begin, RealClock().Now()));
    done->set_value(std::move(object));
  });
  return done->get_future();
}

TrainObserver::CheckpointDone TaskObserver::BeginSlice(uint64_t step, int number,
                                                       const Slices& slices) {
  return BeginObject(InfoOf({.step = step}), number, slices,
                     [this, step](storage::Digest object) -> Result<storage::Digest> {
                       wire::TaskCheckpointSlice report;
                       report.set_step(step);
                       report.set_object(object);
                       if (!diverged_) context_.ReportCheckpointSlice(report);
                       return object;
                     });
}

TrainObserver::CheckpointDone TaskObserver::BeginManifest(
    const CheckpointPoint& point, const std::vector<storage::Digest>& slices) {
  const auto done = std::make_shared<std::promise<Result<storage::Digest>>>();
  writer_.Submit([this, done, info = InfoOf(point), slices] {
    done->set_value(WriteManifest(info, slices, /*of_others=*/true));
  });
  return done->get_future();
}

TrainObserver::CheckpointDone TaskObserver::BeginCheckpoint(const CheckpointPoint& point,
                                                            const Slices& slices) {
  const storage::CheckpointInfo info = InfoOf(point);
  return BeginObject(info, 0, slices, [this, info](storage::Digest object) {
    return WriteManifest(info, {std::move(object)}, /*of_others=*/false);
  });
}

}  // namespace lepton::worker
