#include "scheduler/api/job_inputs.h"

#include "scheduler/api/dataset_check.h"
#include "scheduler/api/file_uri.h"
#include "storage/datasets/import.h"

namespace lepton::api {
namespace {

using nlohmann::json;

Result<NamedManifest> FindModel(const scheduler::State& state, std::string_view field,
                                const std::string& reference) {
  if (reference.empty()) return NamedManifest{};
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
  LEPTON_ASSIGN_OR_RETURN(
      const std::string bytes,
      ReadConfinedFile(spec.dataset.uri, limits.file_roots, limits.max_import_bytes));
  auto result = storage::ImportCsv(objects, "", bytes);
  if (!result.ok()) return result.status().WithContext("dataset.uri");
  imported = {result->digest, result->manifest.source, result->manifest.table};
  return LoadedDataset{result->digest, std::move(result->manifest)};
}

Result<storage::ModelManifest> LoadModel(const storage::ObjectStore& objects,
                                         const std::string& digest) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(digest));
  return storage::ModelManifestFromJson(bytes);
}

int64_t Parameters(const spec::ModelSpec& model, int64_t features, int64_t outputs) {
  int64_t count = 0, width = features;
  for (const int64_t hidden : model.hidden) {
    count += (width + 1) * hidden + (model.layer_norm ? 2 * hidden : 0);
    width = hidden;
  }
  return count + (width + 1) * outputs;
}

json MakePlan(const spec::JobSpec& spec, const DatasetFacts& facts, const References& references) {
  const int64_t outputs =
      spec.loss == "cross_entropy" ? static_cast<int64_t>(facts.classes.size()) : 1;
  const int64_t parameters =
      Parameters(spec.model, static_cast<int64_t>(facts.features.size()), outputs);
  const int64_t per_epoch =
      (facts.train_rows + spec.batch_size - 1) / std::max<int64_t>(1, spec.batch_size);
  const int64_t needed = int64_t{spec.resources.min_workers} * spec.resources.slots_per_worker;
  return {{"dataset",
           {{"rows", facts.rows},
            {"train", facts.train_rows},
            {"validation", facts.validation_rows},
            {"test", facts.test_rows},
            {"features", facts.features.size()},
            {"classes", facts.classes}}},
          // Weights, gradients and the optimizer's two moments, in 32 bits each.
          {"model", {{"parameters", parameters}, {"training_bytes_per_worker", parameters * 16}}},
          {"steps_per_epoch", per_epoch},
          {"total_steps", spec.steps > 0 ? spec.steps : per_epoch * spec.epochs},
          {"gradient_bytes_per_step", parameters * 4},
          {"placement",
           {{"min_workers", spec.resources.min_workers},
            {"max_workers", spec.resources.max_workers},
            {"slots_per_worker", spec.resources.slots_per_worker},
            {"free_slots", references.free_slots},
            {"total_slots", references.total_slots},
            {"enough_free_slots", needed <= references.free_slots}}}};
}

}  // namespace

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
  for (const auto& [id, worker] : state.workers) {
    if (worker.state() != scheduler::WORKER_UP) continue;
    references.free_slots += state.FreeSlots(id);
    references.total_slots += worker.hello().slots();
  }
  return references;
}

Result<ResolvedInputs> ResolveInputs(storage::ObjectStore& objects, const InputLimits& limits,
                                     const spec::JobSpec& spec, const References& references) {
  ResolvedInputs out;
  LEPTON_ASSIGN_OR_RETURN(const auto dataset,
                          LoadDataset(objects, limits, spec, references.dataset, out.imported));
  storage::ModelManifest model;
  const bool has_model = !references.model.name.empty();
  // An evaluated model says itself what its outputs mean.
  spec::JobSpec effective = spec;
  if (has_model) {
    LEPTON_ASSIGN_OR_RETURN(model, LoadModel(objects, references.model.manifest));
    if (spec.kind == spec::JobKind::kEvaluate) effective.loss = model.loss;
  }
  LEPTON_ASSIGN_OR_RETURN(const DatasetFacts facts,
                          CheckDataset(dataset.manifest, effective, has_model ? &model : nullptr));
  auto& inputs = out.inputs;
  inputs.set_dataset_manifest(dataset.digest);
  inputs.set_dataset_name(references.dataset.name.empty() ? spec.dataset.uri
                                                          : references.dataset.name);
  AddObject(objects, dataset.digest, inputs.mutable_dataset_objects());
  AddObject(objects, dataset.manifest.table, inputs.mutable_dataset_objects());

  if (has_model) {
    LEPTON_RETURN_IF_ERROR(CheckModelFits("model.from", references.model.name, model, facts, spec));
    inputs.set_model_manifest(references.model.manifest);
    inputs.set_model_name(references.model.name);
    AddObject(objects, references.model.manifest, inputs.mutable_model_objects());
    AddObject(objects, model.weights, inputs.mutable_model_objects());
  }
  if (!references.teacher.name.empty()) {
    LEPTON_ASSIGN_OR_RETURN(const auto teacher, LoadModel(objects, references.teacher.manifest));
    LEPTON_RETURN_IF_ERROR(
        CheckModelFits("teacher", references.teacher.name, teacher, facts, spec));
    inputs.set_teacher_manifest(references.teacher.manifest);
    inputs.set_teacher_name(references.teacher.name);
    AddObject(objects, references.teacher.manifest, inputs.mutable_teacher_objects());
    AddObject(objects, teacher.weights, inputs.mutable_teacher_objects());
  }
  out.plan = MakePlan(spec, facts, references);
  return out;
}

}  // namespace lepton::api
