#include "storage/models/model_manifest.h"

#include <nlohmann/json.hpp>

#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

constexpr char kFormat[] = "lepton.model";
constexpr int kVersion = 1;

// A spec that does not parse is kept as text, so that nothing is lost on the way.
nlohmann::json Embedded(const std::string& text) {
  nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return parsed.is_discarded() ? nlohmann::json(text) : parsed;
}

Status CheckConsistent(const ModelManifest& m) {
  if (m.mean.size() != m.feature_names.size() || m.scale.size() != m.feature_names.size()) {
    return InvalidArgument("lepton.model manifest: " + std::to_string(m.feature_names.size()) +
                           " features, but " + std::to_string(m.mean.size()) + " means and " +
                           std::to_string(m.scale.size()) + " scales");
  }
  for (size_t i = 0; i < m.scale.size(); ++i) {
    // Written so that NaN fails too.
    if (!(m.scale[i] > 0) || m.scale[i] > 1e300 || !(m.mean[i] > -1e300 && m.mean[i] < 1e300)) {
      return InvalidArgument("lepton.model manifest: feature \"" + m.feature_names[i] +
                             "\": mean and scale must be finite, scale greater than 0");
    }
  }
  if (m.parameters < 0) return InvalidArgument("lepton.model manifest: parameters: negative");
  if (m.steps < 0) return InvalidArgument("lepton.model manifest: steps: negative");
  return Status::Ok();
}

}  // namespace

nlohmann::json ToJson(const ModelManifest& m) {
  return {{"format", kFormat},
          {"version", kVersion},
          {"model", Embedded(m.model_spec_json)},
          {"loss", m.loss},
          {"precision", m.precision},
          {"feature_names", m.feature_names},
          {"mean", NumbersToJson(m.mean)},
          {"scale", NumbersToJson(m.scale)},
          {"label_name", m.label_name},
          {"classes", m.classes},
          {"weights", m.weights},
          {"weights_sha256", m.weights_sha256},
          {"parameters", m.parameters},
          {"metrics", NumbersToJson(m.metrics)},
          {"job_id", m.job_id},
          {"dataset", m.dataset},
          {"dataset_name", m.dataset_name},
          {"teacher", m.teacher},
          {"steps", m.steps}};
}

Result<ModelManifest> ModelManifestFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Parse(text, kFormat, kVersion));
  ModelManifest m;
  reader.ReadJson("model", &m.model_spec_json);
  reader.Read("loss", &m.loss);
  reader.Read("precision", &m.precision);
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
