#include "storage/models/model_manifest.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

constexpr char kFormat[] = "lepton.model";
constexpr char kShortest[] = "shortest";
constexpr char kBinary[] = "binary_cross_entropy";
constexpr std::array<std::string_view, 4> kLosses = {"cross_entropy", kBinary, "mse", "next_token"};
constexpr int kVersion = 2;  // 1: features only, without "input"

// A spec that does not parse is kept as text, so that nothing is lost on the way.
nlohmann::json Embedded(const std::string& text) {
  nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return parsed.is_discarded() ? nlohmann::json(text) : parsed;
}

nlohmann::json InputToJson(const ModelInput& in) {
  nlohmann::json out = {{"kind", in.kind}};
  if (in.kind == "images") {
    out.update({{"channels", in.channels},
                {"height", in.height},
                {"width", in.width},
                {"mean", NumbersToJson(in.mean)},
                {"scale", NumbersToJson(in.scale)},
                {"fit", in.fit}});
    if (in.fit == kShortest) out["edge"] = in.edge;
    if (in.resample != ModelInput().resample) out["resample"] = in.resample;
  }
  if (in.kind == "tokens") {
    out.update({{"vocabulary", in.vocabulary},
                {"context", in.context},
                {"per_token", in.per_token},
                {"tokenizer", in.tokenizer},
                {"text", in.text},
                {"text_pair", in.text_pair}});
  }
  return out;
}

void ReadInput(ManifestReader& reader, ModelInput* in) {
  reader.Read("kind", &in->kind);
  if (in->kind == "images") {
    reader.Read("channels", &in->channels);
    reader.Read("height", &in->height);
    reader.Read("width", &in->width);
    reader.Read("mean", &in->mean);
    reader.Read("scale", &in->scale);
    reader.Read("fit", &in->fit);
    if (in->fit == kShortest) reader.Read("edge", &in->edge);
    if (reader.Has("resample")) reader.Read("resample", &in->resample);
    if (in->resample != "bilinear" && in->resample != "bicubic") {
      reader.Fail("resample", "is not a filter");
    }
  } else if (in->kind == "tokens") {
    reader.Read("vocabulary", &in->vocabulary);
    reader.Read("context", &in->context);
    reader.Read("per_token", &in->per_token);
    reader.Read("tokenizer", &in->tokenizer);
    reader.Read("text", &in->text);
    reader.Read("text_pair", &in->text_pair);
  } else if (in->kind != "features") {
    reader.Fail("kind", "is not a kind of input");
  }
}

Status CheckScales(const std::string& what, const std::vector<double>& mean,
                   const std::vector<double>& scale) {
  for (size_t i = 0; i < scale.size(); ++i) {
    // Written so that NaN fails too.
    if (scale[i] > 0 && scale[i] <= 1e300 && mean[i] > -1e300 && mean[i] < 1e300) continue;
    return InvalidArgument("lepton.model manifest: " + what + " " + std::to_string(i) +
                           ": mean and scale must be finite, scale greater than 0");
  }
  return Status::Ok();
}

Status CheckInput(const ModelInput& in) {
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  const auto sized = [&](int64_t value) { return value >= 1 && value < kMaxSize; };
  if (in.kind == "images") {
    const auto channels = static_cast<size_t>(in.channels);
    if (!sized(in.channels) || !sized(in.height) || !sized(in.width) ||
        !sized(in.height * in.width) || !sized(in.height * in.width * in.channels) ||
        in.mean.size() != channels || in.scale.size() != channels) {
      return InvalidArgument("lepton.model manifest: input: sizes, mean and scale do not agree");
    }
    if (in.fit == kShortest && (!sized(in.edge) || in.edge < in.height || in.edge < in.width)) {
      return InvalidArgument("lepton.model manifest: input: edge is below height or width");
    }
    return CheckScales("input: channel", in.mean, in.scale);
  }
  // Of a model that came as ONNX nobody may have said either: 0.
  const auto known = [&](int64_t value) { return value == 0 || sized(value); };
  if (in.kind == "tokens" && (!known(in.vocabulary) || !known(in.context))) {
    return InvalidArgument("lepton.model manifest: input: vocabulary or context is out of range");
  }
  if (!in.tokenizer.empty() && in.tokenizer != "bytes" && !IsDigest(in.tokenizer)) {
    return InvalidArgument("lepton.model manifest: input: tokenizer is neither bytes nor a digest");
  }
  return Status::Ok();
}

Status CheckConsistent(const ModelManifest& m) {
  LEPTON_RETURN_IF_ERROR(CheckInput(m.input));
  if (m.parameters < 0) return InvalidArgument("lepton.model manifest: parameters: negative");
  if (m.steps < 0) return InvalidArgument("lepton.model manifest: steps: negative");
  if (std::find(kLosses.begin(), kLosses.end(), m.loss) == kLosses.end()) {
    return InvalidArgument("lepton.model manifest: loss: is none of cross_entropy, " +
                           std::string(kBinary) + ", mse, next_token");
  }
  if (m.loss == kBinary && m.classes.size() != 2) {
    return InvalidArgument("lepton.model manifest: classes: " + std::to_string(m.classes.size()) +
                           " of a binary model, which has 2");
  }
  const int64_t pixels = m.input.channels * m.input.height * m.input.width;
  if (m.input.kind == "images" && !m.feature_names.empty() &&
      static_cast<int64_t>(m.feature_names.size()) != pixels) {
    return InvalidArgument("lepton.model manifest: " + std::to_string(m.feature_names.size()) +
                           " features, but " + std::to_string(pixels) + " pixels");
  }
  // Pixels are normalised by channel.
  if (m.input.kind != "features" && m.mean.empty() && m.scale.empty()) return Status::Ok();
  if (m.mean.size() != m.feature_names.size() || m.scale.size() != m.feature_names.size()) {
    return InvalidArgument("lepton.model manifest: " + std::to_string(m.feature_names.size()) +
                           " features, but " + std::to_string(m.mean.size()) + " means and " +
                           std::to_string(m.scale.size()) + " scales");
  }
  LEPTON_RETURN_IF_ERROR(CheckScales("feature", m.mean, m.scale));
  return Status::Ok();
}

// Name to digest.
constexpr std::string_view kNoPlainName("/\\\0", 3);

void ReadFiles(ManifestReader& reader, std::map<std::string, Digest>* files) {
  std::string text;
  reader.ReadJson("files", &text);
  if (!reader.status().ok()) return;
  const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return reader.Fail("files", "must be an object");
  for (const auto& [name, digest] : parsed.items()) {
    if (!digest.is_string() || !IsDigest(digest.get<std::string>())) {
      return reader.Fail("files", "must name objects by digest");
    }
    if (name.empty() || name[0] == '.' || name.find_first_of(kNoPlainName) != std::string::npos) {
      return reader.Fail("files", "must have plain names, unlike \"" + name + "\"");
    }
    (*files)[name] = digest.get<std::string>();
  }
}

}  // namespace

std::vector<Digest> ModelManifest::Objects() const {
  std::vector<Digest> objects = {weights};
  if (IsDigest(input.tokenizer)) objects.push_back(input.tokenizer);
  for (const auto& [name, digest] : files) objects.push_back(digest);
  return objects;
}

std::map<std::string, Digest> ModelManifest::FolderFiles() const {
  std::map<std::string, Digest> all = files;
  if (IsDigest(input.tokenizer)) all.insert({"tokenizer.json", input.tokenizer});
  all["weights.safetensors"] = weights;
  return all;
}

nlohmann::json ToJson(const ModelManifest& m) {
  return {{"format", kFormat},
          {"version", kVersion},
          {"model", Embedded(m.model_spec_json)},
          {"loss", m.loss},
          {"precision", m.precision},
          {"input", InputToJson(m.input)},
          {"feature_names", m.feature_names},
          {"mean", NumbersToJson(m.mean)},
          {"scale", NumbersToJson(m.scale)},
          {"label_name", m.label_name},
          {"classes", m.classes},
          {"weights", m.weights},
          {"weights_sha256", m.weights_sha256},
          {"files", m.files},
          {"parameters", m.parameters},
          {"metrics", NumbersToJson(m.metrics)},
          {"job_id", m.job_id},
          {"dataset", m.dataset},
          {"dataset_name", m.dataset_name},
          {"teacher", m.teacher},
          {"steps", m.steps}};
}

std::string ToText(const ModelManifest& manifest) {
  return DumpManifest(ToJson(manifest));
}

Result<ModelManifest> ModelManifestFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Parse(text, kFormat, kVersion));
  ModelManifest m;
  reader.ReadJson("model", &m.model_spec_json);
  reader.Read("loss", &m.loss);
  reader.Read("precision", &m.precision);
  int64_t version = 0;
  reader.Read("version", &version);
  if (version > 1) {
    if (ManifestReader input = reader.ReadObject("input"); reader.status().ok()) {
      ReadInput(input, &m.input);
    }
    ReadFiles(reader, &m.files);
  }
  reader.Read("feature_names", &m.feature_names);
  reader.Read("mean", &m.mean);
  reader.Read("scale", &m.scale);
  reader.Read("label_name", &m.label_name);
  reader.Read("classes", &m.classes);
  reader.ReadDigest("weights", &m.weights);
  reader.ReadDigest("weights_sha256", &m.weights_sha256);
  reader.Read("parameters", &m.parameters);
  reader.Read("metrics", &m.metrics);
  reader.Read("job_id", &m.job_id);
  reader.ReadDigest("dataset", &m.dataset, /*may_be_empty=*/true);
  reader.Read("dataset_name", &m.dataset_name);
  reader.ReadDigest("teacher", &m.teacher, /*may_be_empty=*/true);
  reader.Read("steps", &m.steps);
  LEPTON_RETURN_IF_ERROR(reader.status());
  LEPTON_RETURN_IF_ERROR(CheckConsistent(m));
  return m;
}

}  // namespace lepton::storage
