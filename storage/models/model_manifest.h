// One immutable version of a model: everything that a replica or an evaluation needs. Stored as a
// JSON object; its digest is the version's identity. The registry (names, versions, aliases,
// lineage) is in the coordinator's journal; this is what it points to.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <map>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {

// What a model takes, and how raw data becomes that.
struct ModelInput {
  std::string kind = "features";  // features | images | tokens
  // images: of files (a byte is 0 to 1), or of the columns `feature_names` of a table.
  int64_t channels = 0, height = 0, width = 0;
  std::vector<double> mean, scale;  // a channel: (raw - mean) / scale
  // How files get their size: stretch | crop, the largest middle part of that shape | shortest, the
  // shorter side becomes `edge`, and the middle of that is cut out.
  std::string fit = "stretch";
  int64_t edge = 0;                   // shortest: not below height and width
  std::string resample = "bilinear";  // or bicubic: the filter of files
  // tokens
  int64_t vocabulary = 0, context = 0;
  bool per_token = false;       // a language model, or one of a class per token
  std::string tokenizer;        // "bytes", or the digest of a tokenizer.json; "" for ids alone
  std::string text, text_pair;  // columns of a table; "" for a stream
};

// A model in a folder, as `lepton run` and `lepton model pull` leave it: this file, and those of
// FolderFiles().
inline constexpr const char* kManifestFile = "manifest.json";

struct ModelManifest {
  std::string model_spec_json;  // runtime/spec ModelSpec: the architecture
  std::string loss;             // cross_entropy | binary_cross_entropy | mse | next_token
  std::string precision;
  ModelInput input;
  // Features: raw columns, in order; x = (raw - mean) / scale, missing cells take mean.
  std::vector<std::string> feature_names;
  std::vector<double> mean, scale;
  std::string label_name;
  std::vector<std::string> classes;  // class index -> label as text; empty for other losses
  Digest weights;                    // safetensors object
  std::string weights_sha256;        // safetensors::WeightsDigest
  // Further files of the model, by name: "graph.onnx" of arch onnx.
  std::map<std::string, Digest> files;
  int64_t parameters = 0;
  std::map<std::string, double> metrics;  // "test/accuracy", ...
  // Lineage.
  std::string job_id;
  Digest dataset;  // manifest digest
  std::string dataset_name;
  Digest teacher;  // manifest digest, distilled models
  int64_t steps = 0;

  // Whether it gives a class per token of a text, as imported models may. No dataset has labels for
  // that, so nothing but a start of training comes of such a model.
  bool labels_tokens() const { return input.per_token && loss != "next_token"; }
  // The objects beside the manifest that a task needs to run the model.
  std::vector<Digest> Objects() const;
  // The same by their names in a folder: weights.safetensors, tokenizer.json, and `files`. Plain
  // names: none leads out of the folder.
  std::map<std::string, Digest> FolderFiles() const;
};

nlohmann::json ToJson(const ModelManifest& manifest);
// The bytes to store. Text that is not UTF-8, as files of others have, gets U+FFFD in its place.
std::string ToText(const ModelManifest& manifest);
// Never throws. What it gives is held against itself: the loss is one of the four, a binary model
// has two classes, pictures of a table's columns one a pixel. kInvalidArgument names the field that
// is missing or wrong; kFailedPrecondition when a newer program wrote it.
Result<ModelManifest> ModelManifestFromJson(std::string_view json);

}  // namespace lepton::storage
