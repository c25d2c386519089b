#include "scheduler/api/job_inputs.h"

#include <fmt/format.h>

#include "runtime/formats/tokenizer/tokenizer.h"
#include "runtime/http/http.h"
#include "scheduler/api/dataset_check.h"
#include "scheduler/api/file_uri.h"
#include "scheduler/core/queue.h"

namespace lepton::api {
namespace {

using nlohmann::json;

// A spec's reference to a model that is in a folder rather than registered.
bool IsFolderReference(std::string_view reference) {
  return reference.starts_with("file:///");
}

Result<NamedManifest> FindModel(const scheduler::State& state, std::string_view field,
                                const std::string& reference) {
  if (reference.empty()) return NamedManifest{};
  if (IsFolderReference(reference)) return NamedManifest{reference, ""};
  LEPTON_ASSIGN_OR_RETURN(const auto found, state.FindModel(field, reference));
  return NamedManifest{found.name, found.version->manifest()};
}

void AddObject(const storage::ObjectStore& objects, const std::string& digest,
               google::protobuf::RepeatedPtrField<wire::ObjectRef>* refs) {
  auto* ref = refs->Add();
  ref->set_digest(digest);
  if (const auto size = objects.Size(digest); size.ok()) ref->set_bytes(*size);
}

struct LoadedDataset {
  std::string digest;
  storage::DatasetManifest manifest;
};
Result<LoadedDataset> LoadDataset(storage::ObjectStore& objects, const InputLimits& limits,
                                  const spec::JobSpec& spec, const NamedManifest& named,
                                  std::vector<std::string>& imported) {
  if (!named.name.empty()) {
    LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(named.manifest));
    LEPTON_ASSIGN_OR_RETURN(auto manifest, storage::DatasetManifestFromJson(bytes));
    return LoadedDataset{named.manifest, std::move(manifest)};
  }
  storage::ImportOptions options;
  options.format = spec.dataset.format;
  options.token_type = spec.dataset.token_type;
  LEPTON_ASSIGN_OR_RETURN(auto result,
                          ImportUri(objects, limits, "dataset.uri", spec.dataset.uri, options));
  imported.push_back(result.digest);
  for (const auto& digest : {result.manifest.source, result.manifest.table}) {
    if (!digest.empty()) imported.push_back(digest);
  }
  return LoadedDataset{result.digest, std::move(result.manifest)};
}

// "bytes", or the digest of the tokenizer.json that the spec names, stored; else the one of
// `model`, which the spec's must be if both are there; else nothing.
Result<std::string> ChooseTokenizer(storage::ObjectStore& objects, const InputLimits& limits,
                                    const spec::JobSpec& spec, const storage::ModelManifest* model,
                                    std::string_view model_field,
                                    std::vector<std::string>& imported) {
  constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
  const std::string& wanted = spec.dataset.tokenizer;
  const std::string own = model == nullptr ? "" : model->input.tokenizer;
  std::string chosen = wanted;
  if (!wanted.empty() && wanted != "bytes") {
    LEPTON_ASSIGN_OR_RETURN(
        const std::string json,
        ReadConfinedFile("dataset.tokenizer", wanted, limits.file_roots, kMaxTokenizerBytes));
    const Status readable = tokenizer::Tokenizer::FromJson(json).status();
    if (!readable.ok()) return readable.WithContext("dataset.tokenizer");
    LEPTON_ASSIGN_OR_RETURN(chosen, objects.Put(json));
    imported.push_back(chosen);
  }
  if (chosen.empty()) return own;
  if (own.empty() || own == chosen) return chosen;
  return InvalidArgument(fmt::format(
      "dataset.tokenizer: is not the one that {} was trained with; leave it out", model_field));
}

Result<storage::ModelManifest> LoadModel(const storage::ObjectStore& objects,
                                         const std::string& digest) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(digest));
  return storage::ModelManifestFromJson(bytes);
}

// The model in the folder that model.hf names.
Result<NamedManifest> ImportHuggingFace(storage::ObjectStore& objects, const InputLimits& limits,
                                        const ModelTools& tools, const std::string& folder,
                                        std::vector<std::string>& imported) {
  const std::filesystem::path path(folder);
  if (!path.is_absolute()) {
    return InvalidArgument("model.hf: " + folder + " is not an absolute path");
  }
  const auto model = ImportFolderUri(objects, limits, tools, "model.hf", http::FileUri(path));
  if (!model.ok()) return model.status();
  imported.insert(imported.end(), model->objects.begin(), model->objects.end());
  const std::filesystem::path name = path.has_filename() ? path : path.parent_path();
  return NamedManifest{name.filename().string(), model->manifest};
}

bool IsTraining(spec::JobKind kind) {
  return kind != spec::JobKind::kEvaluate && kind != spec::JobKind::kBatch;
}

// The model in the file that model.onnx names. Where the file says nothing of its features and
// classes, they are those of the data, by position; of a batch the features alone.
Result<NamedManifest> ImportModelFile(storage::ObjectStore& objects, const InputLimits& limits,
                                      const ModelTools& tools, const spec::JobSpec& spec,
                                      const storage::DatasetManifest& dataset,
                                      std::vector<std::string>& imported) {
  if (!tools.import_onnx) return FailedPrecondition("model.onnx: not available here");
  const std::filesystem::path path(spec.model.onnx);
  if (!path.is_absolute()) {
    return InvalidArgument("model.onnx: " + spec.model.onnx + " is not an absolute path");
  }
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes,
                          ReadConfinedFile("model.onnx", http::FileUri(path), limits.file_roots,
                                           limits.max_import_bytes));
  ModelNames names;
  names.weak = true;
  names.trains = IsTraining(spec.kind);
  names.label = spec.dataset.label;
  // What is only asked has the loss that its outputs say, unless the spec has another than the
  // default, and answers rows with any labels or none.
  if (names.trains || spec.loss != spec::JobSpec().loss) names.loss = spec.loss;
  const bool labelled = spec.kind != spec::JobKind::kBatch;
  if (labelled) names.classes = dataset.classes;
  for (const auto& column : dataset.columns) {
    if (column.name != spec.dataset.label) {
      names.features.push_back(column.name);
    } else if (labelled && spec.loss != "mse") {
      names.classes = column.classes;
    }
  }
  LEPTON_ASSIGN_OR_RETURN(ImportedModel model, tools.import_onnx(objects, bytes, path.parent_path(),
                                                                 limits.file_roots.but_not, names));
  imported.insert(imported.end(), model.objects.begin(), model.objects.end());
  return NamedManifest{path.filename().string(), std::move(model.manifest)};
}

// Fills in the manifest of a reference to a folder that a run left.
Status ImportReference(storage::ObjectStore& objects, const InputLimits& limits,
                       const ModelTools& tools, std::string_view field, NamedManifest& named,
                       std::vector<std::string>& imported) {
  if (!IsFolderReference(named.name)) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(ImportedModel model,
                          ImportFolderUri(objects, limits, tools, field, named.name));
  imported.insert(imported.end(), model.objects.begin(), model.objects.end());
  named.manifest = std::move(model.manifest);
  return Status::Ok();
}

// Whether a new model fits the data, as far as that is known now; of a search, at the ends of its
// dimensions.
Status CheckModel(const ModelTools& tools, const spec::JobSpec& spec, const DatasetFacts& facts) {
  if (!tools.check_model) return Status::Ok();
  const ModelData data{.kind = facts.input,
                       .features = static_cast<int64_t>(facts.features.size()),
                       .channels = facts.channels,
                       .height = facts.height,
                       .width = facts.width};
  if (!spec.search) return tools.check_model(spec.model, data);
  for (const auto& values : spec::TrialCorners(*spec.search)) {
    LEPTON_ASSIGN_OR_RETURN(const spec::JobSpec trial, spec::ApplyTrial(spec, values));
    LEPTON_RETURN_IF_ERROR(tools.check_model(trial.model, data).WithContext("search.space"));
  }
  return Status::Ok();
}

int64_t Parameters(const spec::ModelSpec& model, int64_t features, int64_t outputs) {
  int64_t count = 0, width = features;
  for (const int64_t hidden : model.hidden) {
    count += (width + 1) * hidden + (model.layer_norm ? 2 * hidden : 0);
    width = hidden;
  }
  return count + (width + 1) * outputs;
}

// Of the model that a job starts from, asks or evaluates; 0: not known before it is built.
int64_t CountParameters(const spec::JobSpec& spec, const DatasetFacts& facts,
                        const storage::ModelManifest* given) {
  if (given != nullptr) {
    // With other classes it gets another head.
    const bool same = !IsTraining(spec.kind) || given->classes.size() == facts.classes.size();
    return same ? given->parameters : 0;
  }
  if (spec.model.arch != "mlp" || facts.input != "features") return 0;
  const int64_t outputs =
      spec.loss == "cross_entropy" ? static_cast<int64_t>(facts.classes.size()) : 1;
  return Parameters(spec.model, static_cast<int64_t>(facts.features.size()), outputs);
}

// How large a model is, where that is known before it is built.
json ModelPlan(const spec::JobSpec& spec, const DatasetFacts& facts,
               const storage::ModelManifest* given) {
  const int64_t parameters = CountParameters(spec, facts, given);
  if (parameters == 0) return json::object();
  if (!IsTraining(spec.kind)) return {{"parameters", parameters}};
  // Weights, gradients and the optimizer's two moments, in 32 bits each; two slices of what
  // parallel.zero cuts up.
  const auto cut = [&](int64_t bytes, int stage) {
    const int64_t slices = std::max(2, spec.resources.min_workers);
    return spec.parallel.zero < stage ? bytes : (2 * bytes + slices - 1) / slices;
  };
  // A round keeps the weights that all share, the outer momentum and what each shard changed.
  const int64_t inner = spec.local_sgd.inner_steps;
  const int64_t workers = spec.resources.min_workers;
  const int64_t rounds = inner > 0 ? 2 + (spec.shards() + workers - 1) / workers : 0;
  return {{"parameters", parameters},
          {"training_bytes_per_worker", 4 * rounds * parameters + cut(4 * parameters, 3) +
                                            cut(4 * parameters, 2) + cut(8 * parameters, 1)},
          {"gradient_bytes_per_step", parameters * 4 / std::max<int64_t>(1, inner)}};
}

json MakePlan(const spec::JobSpec& spec, const DatasetFacts& facts, const References& references,
              const storage::ModelManifest* given) {
  const int64_t per_epoch =
      (facts.train_rows + spec.batch_size - 1) / std::max<int64_t>(1, spec.batch_size);
  return {{"dataset",
           {{"rows", facts.rows},
            {"train", facts.train_rows},
            {"validation", facts.validation_rows},
            {"test", facts.test_rows},
            {"features", facts.features.size()},
            {"classes", facts.classes}}},
          {"model", ModelPlan(spec, facts, given)},
          {"steps_per_epoch", per_epoch},
          {"total_steps", spec.steps > 0 ? spec.steps : per_epoch * spec.epochs},
          {"placement",
           {{"min_workers", spec.resources.min_workers},
            {"max_workers", spec.resources.max_workers},
            {"slots_per_worker", spec.resources.slots_per_worker},
            {"free_slots", references.free_slots},
            {"total_slots", references.total_slots},
            {"enough_free_slots", references.fits_now}}}};
}

}  // namespace

bool Imports(const spec::JobSpec& spec, const References& references) {
  return (references.dataset.name.empty() && !spec.dataset.uri.empty()) || !spec.model.hf.empty() ||
         !spec.model.onnx.empty() || IsFolderReference(references.model.name) ||
         IsFolderReference(references.teacher.name);
}

Result<storage::ImportedDataset> ImportUri(storage::ObjectStore& objects, const InputLimits& limits,
                                           std::string_view field, const std::string& uri,
                                           storage::ImportOptions options) {
  LEPTON_ASSIGN_OR_RETURN(ConfinedFile file, OpenConfined(field, uri, limits.file_roots));
  options.path = file.path;
  options.limits.table_bytes = limits.max_import_bytes;
  options.progress = limits.progress;
  if (file.folder) {
    auto imported = storage::ImportFolder(objects, std::move(file.fd), options);
    if (!imported.ok()) return imported.status().WithContext(field);
    return imported;
  }
  auto source = storage::ByteSource::FromFile(std::move(file.fd));
  if (!source.ok()) return source.status().WithContext(field);
  auto imported = storage::ImportFile(objects, *std::move(source), options);
  if (!imported.ok()) return imported.status().WithContext(field);
  return imported;
}

Result<ImportedModel> ImportFolderUri(storage::ObjectStore& objects, const InputLimits& limits,
                                      const ModelTools& tools, std::string_view field,
                                      const std::string& uri) {
  if (!tools.import_folder) return FailedPrecondition(fmt::format("{}: not available here", field));
  std::string base = uri;
  while (base.ends_with('/')) base.pop_back();
  // Each file by itself: links, of which download caches are full, may not lead out of the roots.
  const auto open = [&](const std::string& name) -> Result<UniqueFd> {
    LEPTON_ASSIGN_OR_RETURN(
        ConfinedFile file,
        OpenConfined(field, base + "/" + http::PercentEncode(name), limits.file_roots));
    return std::move(file.fd);
  };
  auto model = tools.import_folder(objects, open);
  if (!model.ok() && !model.status().message().starts_with(field)) {
    return model.status().WithContext(field);
  }
  return model;
}

Result<References> FindReferences(const scheduler::State& state, const spec::JobSpec& spec) {
  References references;
  if (!spec.dataset.name.empty()) {
    LEPTON_ASSIGN_OR_RETURN(const auto found, state.FindDataset("dataset.name", spec.dataset.name));
    references.dataset = {found.name, found.version->manifest()};
  }
  LEPTON_ASSIGN_OR_RETURN(references.model, FindModel(state, "model.from", spec.model.from));
  if (spec.distill) {
    LEPTON_ASSIGN_OR_RETURN(references.teacher, FindModel(state, "teacher", spec.distill->teacher));
  }
  const placement::GangRequest request = scheduler::RequestOf(spec, scheduler::Job());
  const std::vector<placement::Seat> seats = scheduler::SeatsOf(state, {});
  for (const placement::Seat& seat : seats) {
    if (request.gpu && seat.gpus == 0) continue;
    references.free_slots += seat.free;
    references.total_slots += seat.slots;
  }
  references.fits_now = !placement::PlaceGang(seats, request).workers.empty();
  return references;
}

Result<ResolvedInputs> ResolveInputs(storage::ObjectStore& objects, const InputLimits& limits,
                                     const ModelTools& tools, const spec::JobSpec& spec,
                                     const References& named) {
  ResolvedInputs out;
  References references = named;
  LEPTON_ASSIGN_OR_RETURN(const auto dataset,
                          LoadDataset(objects, limits, spec, references.dataset, out.imported));
  if (!spec.model.onnx.empty()) {
    LEPTON_ASSIGN_OR_RETURN(references.model, ImportModelFile(objects, limits, tools, spec,
                                                              dataset.manifest, out.imported));
  }
  if (!spec.model.hf.empty()) {
    LEPTON_ASSIGN_OR_RETURN(references.model,
                            ImportHuggingFace(objects, limits, tools, spec.model.hf, out.imported));
  }
  LEPTON_RETURN_IF_ERROR(
      ImportReference(objects, limits, tools, "model.from", references.model, out.imported));
  LEPTON_RETURN_IF_ERROR(
      ImportReference(objects, limits, tools, "teacher", references.teacher, out.imported));
  storage::ModelManifest model;
  const bool has_model = !references.model.name.empty();
  // An evaluated model says itself what its outputs mean.
  spec::JobSpec effective = spec;
  if (has_model) {
    LEPTON_ASSIGN_OR_RETURN(model, LoadModel(objects, references.model.manifest));
    if (!IsTraining(spec.kind)) effective.loss = model.loss;
  }
  LEPTON_ASSIGN_OR_RETURN(const DatasetFacts facts,
                          CheckDataset(dataset.manifest, effective, has_model ? &model : nullptr));
  if (!has_model) LEPTON_RETURN_IF_ERROR(CheckModel(tools, spec, facts));
  auto& inputs = out.inputs;
  inputs.set_dataset_manifest(dataset.digest);
  inputs.set_dataset_name(references.dataset.name.empty() ? spec.dataset.uri
                                                          : references.dataset.name);
  AddObject(objects, dataset.digest, inputs.mutable_dataset_objects());
  for (const auto& digest : dataset.manifest.DataObjects()) {
    AddObject(objects, digest, inputs.mutable_dataset_objects());
  }

  if (has_model) {
    LEPTON_RETURN_IF_ERROR(CheckModelFits("model.from", references.model.name, model, facts, spec));
    inputs.set_model_manifest(references.model.manifest);
    inputs.set_model_name(references.model.name);
    AddObject(objects, references.model.manifest, inputs.mutable_model_objects());
    for (const auto& digest : model.Objects()) {
      AddObject(objects, digest, inputs.mutable_model_objects());
    }
  }
  storage::ModelManifest teacher;
  const bool has_teacher = !references.teacher.name.empty();
  if (has_teacher) {
    LEPTON_ASSIGN_OR_RETURN(teacher, LoadModel(objects, references.teacher.manifest));
    LEPTON_RETURN_IF_ERROR(
        CheckModelFits("teacher", references.teacher.name, teacher, facts, spec));
    inputs.set_teacher_manifest(references.teacher.manifest);
    inputs.set_teacher_name(references.teacher.name);
    AddObject(objects, references.teacher.manifest, inputs.mutable_teacher_objects());
    for (const auto& digest : teacher.Objects()) {
      AddObject(objects, digest, inputs.mutable_teacher_objects());
    }
  }
  if (facts.input == "tokens") {
    const storage::ModelManifest* like = has_teacher ? &teacher : has_model ? &model : nullptr;
    LEPTON_ASSIGN_OR_RETURN(const std::string tokenizer,
                            ChooseTokenizer(objects, limits, spec, like,
                                            has_teacher ? "teacher" : "model.from", out.imported));
    if (tokenizer.empty() && dataset.manifest.kind != storage::DatasetKind::kTokens) {
      return InvalidArgument(
          "dataset.tokenizer: missing: give bytes, or file:///... of a tokenizer.json");
    }
    inputs.set_tokenizer(tokenizer);
    if (storage::IsDigest(tokenizer)) {
      AddObject(objects, tokenizer, inputs.mutable_dataset_objects());
    }
  }
  out.plan = MakePlan(spec, facts, references, has_model ? &model : nullptr);
  return out;
}

}  // namespace lepton::api
