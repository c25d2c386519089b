// What can be done with models beyond keeping them: functions that the program around the
// coordinator gives it, since the API never sees a tensor. What needs one that is not given is
// refused (kFailedPrecondition).
// Threads: any; they block on disk and arithmetic, so they run on the pool.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/status.h"
#include "runtime/spec/model_spec.h"
#include "storage/objects/object_store.h"

namespace lepton::api {

// What a file does not say of itself; all may be empty.
struct ModelNames {
  std::vector<std::string> features;
  std::vector<std::string> classes;
  std::string label;
  std::string loss;
  // They count only where the file says nothing; and classes of what does not train, where their
  // number is the model's.
  bool weak = false;
  bool trains = false;  // the job trains on from it: a model that cannot is refused
};
struct ImportedModel {
  storage::Digest manifest;
  std::vector<storage::Digest> objects;  // incl. the manifest
};
// A model's file for other programs, and the second one that holds its weights when they are large.
struct ModelFiles {
  std::string model;
  std::string data;
};

// What a model is given, as far as that is known before the data is read: 0 where it is not.
struct ModelData {
  std::string kind;  // features | images | tokens
  int64_t features = 0;
  int64_t channels = 0, height = 0, width = 0;
};

struct ModelTools {
  // Whether the architecture takes such data and its sizes go together: kInvalidArgument names the
  // field. Not given: tasks find out.
  std::function<Status(const spec::ModelSpec& model, const ModelData& data)> check_model;
  // `folder`: where external data may be, but not in `but_not`; empty for none. Errors start with
  // "model.onnx: " where the file is wrong.
  std::function<Result<ImportedModel>(
      storage::ObjectStore& objects, std::string_view bytes, const std::filesystem::path& folder,
      const std::filesystem::path& but_not, const ModelNames& names)>
      import_onnx;
  // A Hugging Face folder, or one with a stored model as runs leave it. `open`: a file of it by
  // its plain name, for reading, confined to what the caller may read. Errors name the file.
  using OpenFile = std::function<Result<UniqueFd>(const std::string& name)>;
  std::function<Result<ImportedModel>(storage::ObjectStore& objects, const OpenFile& open)>
      import_folder;
  // The same of a tar archive of such a folder. `is_archive`: whether bytes begin one.
  std::function<bool(std::string_view start)> is_archive;
  std::function<Result<ImportedModel>(storage::ObjectStore& objects, UniqueFd archive)>
      import_archive;
  std::function<Result<ModelFiles>(const storage::ObjectStore& objects,
                                   const storage::Digest& manifest)>
      export_onnx;
};

}  // namespace lepton::api
