// From what a spec names to what a job gets: its data, the model it starts from, its teacher, as
// digests of objects in the coordinator's store, checked against each other before anything enters
// the journal. Two steps, because the state may not wait for the disk:
//   FindReferences (state loop) -> ResolveInputs (pool thread) -> SubmitJob
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/spec/job_spec.h"
#include "scheduler/api/file_uri.h"
#include "scheduler/api/model_tools.h"
#include "scheduler/core/state.h"
#include "storage/datasets/import.h"
#include "storage/objects/object_store.h"

namespace lepton::api {

// A registered version that a spec names; empty name: none named.
struct NamedManifest {
  std::string name;  // "digits@3"
  std::string manifest;
};
struct References {
  NamedManifest dataset, model, teacher;
  uint32_t free_slots = 0, total_slots = 0;  // of the workers that may have it
  bool fits_now = false;
};
// kNotFound names the field and what there is.
Result<References> FindReferences(const scheduler::State& state, const spec::JobSpec& spec);

// Whether resolving them imports data or a model, which may take minutes.
bool Imports(const spec::JobSpec& spec, const References& references);

struct InputLimits {
  FileRoots file_roots;
  size_t max_import_bytes = size_t{1} << 30;  // of a table, which is parsed in memory
  std::function<bool(const storage::ImportProgress&)> progress = {};  // as an import's
};
struct ResolvedInputs {
  scheduler::JobInputs inputs;
  nlohmann::json plan;                // for ?dry_run=1
  std::vector<std::string> imported;  // objects that were stored here, used by the job or not
};
// A file or folder that a URI leads to, within the file roots, as a dataset. Messages start with
// `field`.
Result<storage::ImportedDataset> ImportUri(storage::ObjectStore& objects, const InputLimits& limits,
                                           std::string_view field, const std::string& uri,
                                           storage::ImportOptions options);
// The folder that a URI leads to, Hugging Face's or one that a run left, as a stored model.
// Messages start with `field`.
Result<ImportedModel> ImportFolderUri(storage::ObjectStore& objects, const InputLimits& limits,
                                      const ModelTools& tools, std::string_view field,
                                      const std::string& uri);
// Imports file:// datasets and tokenizers, and the ONNX model that the spec names. Errors name the
// field: a label column that is not there (with those that are), text features, too few classes or
// rows, a teacher that does not fit the data.
Result<ResolvedInputs> ResolveInputs(storage::ObjectStore& objects, const InputLimits& limits,
                                     const ModelTools& tools, const spec::JobSpec& spec,
                                     const References& references);

}  // namespace lepton::api
