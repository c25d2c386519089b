// What users bring beside models: files of datasets, requests of inference, chats; tables that were
// measured, and training states.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "collectives/tuning_table.h"
#include "storage/checkpoints/checkpoint.h"
#include "storage/datasets/image_index.h"
#include "storage/datasets/import.h"
#include "storage/objects/object_store.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/data/chat_prompts.h"
#include "worker/infer/row_protocol.h"
#include "worker/infer/tensor_protocol.h"

namespace lepton::fuzz {
namespace {

storage::ModelManifest Manifest(const char* kind, const char* loss) {
  storage::ModelManifest manifest;
  manifest.input.kind = kind;
  manifest.loss = loss;
  manifest.classes = {"cat", "dog"};
  return manifest;
}

void Ask(const worker::ServedModel& model, std::string_view body,
         std::optional<size_t> json_bytes) {
  const auto rows = worker::ParseRows(model, body);
  const auto request = worker::ParseInferRequest(model, body, json_bytes);
  for (const worker::ModelRows* given :
       {rows.ok() ? &*rows : nullptr, request.ok() ? &request->rows : nullptr}) {
    if (given == nullptr) continue;
    if (given->rows < 1 || given->raw.size() != static_cast<size_t>(given->rows * model.numbers)) {
      abort();
    }
  }
  if (!request.ok()) return;
  const std::vector<float> logits(static_cast<size_t>(request->rows.rows * model.outputs), 0.5f);
  (void)worker::EncodeInferResponse(model, *request, logits);
}

storage::ObjectStore& Objects() {
  static const std::unique_ptr<storage::ObjectStore> objects =
      storage::ObjectStore::Open(ScratchFolder() / "objects").value();
  return *objects;
}

}  // namespace

// The first byte is the format.
void FuzzDatasetImport(std::string_view bytes) {
  static const std::vector<std::string>& formats = storage::DatasetFormats();
  storage::ObjectStore& objects = Objects();
  if (bytes.empty()) return;
  storage::ImportOptions options;
  options.name = "d";
  options.format = formats[static_cast<uint8_t>(bytes[0]) % formats.size()];
  options.limits = {.table_bytes = 1 << 16, .stream_bytes = 1 << 18, .picture_bytes = 1 << 16};
  const auto imported =
      storage::ImportFile(objects, storage::ByteSource::FromMemory(bytes.substr(1)), options);
  if (!imported.ok()) return;
  const auto manifest = objects.Get(imported->digest);
  if (!manifest.ok() || !storage::DatasetManifestFromJson(*manifest).ok()) abort();
}

void FuzzImageIndex(std::string_view bytes) {
  constexpr int64_t kObjectBytes = 1'000;
  static const std::string object(kObjectBytes, 'x');
  const auto index = storage::ImageIndexFromSafetensors(bytes, kObjectBytes, 3);
  if (!index.ok()) return;
  size_t total = 0;
  for (int64_t i = 0; i < index->size(); ++i) {
    total += index->Path(i).size() + index->File(object, i).size();
  }
  if (total > object.size() + bytes.size()) abort();
}

void FuzzTuningTable(std::string_view bytes) {
  const std::string text = "lepton-collectives-table 1\nhost " +
                           collectives::TuningTable::ThisHost() + "\n" + std::string(bytes);
  const auto table = collectives::TuningTable::Parse(text);
  if (!table.ok()) return;
  const auto again = collectives::TuningTable::Parse(table->ToText());
  if (!again.ok() || again->digest() != table->digest()) abort();
  (void)table->AlgorithmFor("shm", 5, 1'000);
}

// A body as it came; behind a first byte that is odd, with so many bytes of JSON in it.
void FuzzInferenceRequest(std::string_view bytes) {
  static const storage::ModelManifest features = [] {
    auto manifest = Manifest("features", "cross_entropy");
    manifest.feature_names = {"width", "height", "weight"};
    return manifest;
  }();
  static const storage::ModelManifest values = [] {
    auto manifest = Manifest("features", "mse");
    manifest.feature_names = {"width"};
    manifest.classes.clear();
    return manifest;
  }();
  static const storage::ModelManifest pictures = [] {
    auto manifest = Manifest("images", "cross_entropy");
    manifest.input.channels = 1;
    manifest.input.height = manifest.input.width = 2;
    return manifest;
  }();
  if (bytes.empty()) return;
  std::optional<size_t> json_bytes;
  if (bytes[0] & 1) json_bytes = static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  worker::ServedModel model{.deployment = "live", .name = "m", .version = "1", .outputs = 2};
  model.manifest = &features;
  model.numbers = 3;
  Ask(model, bytes, json_bytes);
  model.manifest = &pictures;
  model.numbers = 4;
  Ask(model, bytes, json_bytes);
  model.manifest = &values;
  model.numbers = model.outputs = 1;
  Ask(model, bytes, json_bytes);
}

// The first line is the manifest, in which SLICE is the digest of what follows.
void FuzzCheckpoint(std::string_view bytes) {
  constexpr std::string_view kSlice = "SLICE";
  const size_t cut = std::min(bytes.find('\n'), bytes.size());
  std::string manifest(bytes.substr(0, cut));
  const auto slice = Objects().Put(bytes.substr(std::min(cut + 1, bytes.size())));
  for (size_t at = 0; (at = manifest.find(kSlice, at)) != std::string::npos;) {
    manifest.replace(at, kSlice.size(), slice.value());
  }
  const auto digest = Objects().Put(manifest);
  const auto loaded = storage::ReadCheckpoint(Objects(), digest.value());
  size_t numbers = 0;
  if (loaded.ok()) {
    for (const auto& [name, values] : loaded->tensors) numbers += values.size();
  }
  if (numbers > bytes.size()) abort();
  (void)Objects().Remove(*digest);
  (void)Objects().Remove(*slice);
}

void FuzzChat(std::string_view bytes) {
  constexpr int64_t kContext = 64;
  static const auto prompts = [] {
    storage::ModelManifest model;
    model.files["chat_template.jinja"] =
        Objects()
            .Put(
                "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ m "
                "| tojson }}{% endfor %}")
            .value();
    model.files["tokenizer_config.json"] = Objects().Put(R"({"bos_token": "<s>"})").value();
    const auto encoder = worker::TextEncoder::Load(Objects(), "bytes").value();
    return worker::ChatPrompts::Load(Objects(), model, encoder).value();
  }();
  const auto prompt = prompts->Encode(bytes, kContext);
  if (prompt.ok() && static_cast<int64_t>(prompt->ids.size()) > kContext) abort();
}

}  // namespace lepton::fuzz
