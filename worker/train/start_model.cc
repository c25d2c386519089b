#include "worker/train/start_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glog/logging.h>

#include <algorithm>

#include "runtime/nn/divided_model.h"

namespace lepton::worker {

spec::ModelSpec ChooseModel(const spec::ModelSpec& wanted, const std::optional<StoredModel>& from) {
  if (!from) return wanted;
  if (wanted.arch == "onnx") return from->model;  // the file that the spec named, as it is stored
  if (!spec::SaysNoArchitecture(wanted)) return wanted;
  spec::ModelSpec model = from->model;
  if (wanted.dropout > 0) model.dropout = wanted.dropout;
  // What it is trained for says the head; a body of its own may lack what lies between.
  model.head = "auto";
  model.transformer.pooler = model.arch == "transformer" && model.transformer.style == "bert";
  if (from->model.head == "none") {
    // As the family's classifiers read it, not as an embedding.
    model.transformer.pool =
        spec::DefaultModel(model.arch, model.transformer.style).transformer.pool;
    model.transformer.normalize = false;
  }
  // Convolutions take pictures of any size.
  if (spec::IsResnet(model.arch)) model.image.height = model.image.width = 0;
  return model;
}

spec::DatasetSpec ChoosePictures(const spec::DatasetSpec& wanted,
                                 const std::optional<StoredModel>& from) {
  spec::DatasetSpec dataset = wanted;
  if (!from || from->manifest.input.kind != "images") return dataset;
  const storage::ModelInput& input = from->manifest.input;
  spec::PictureSpec& image = dataset.image;
  if (image.channels == 0) image.channels = input.channels;
  if (image.mean.empty() && image.std.empty()) {
    image.mean = input.mean;
    image.std = input.scale;
  }
  if (image.height > 0 || image.width > 0) return dataset;
  image.height = input.height;
  image.width = input.width;
  // What is trained on sees all of the middle; only the model as it came keeps a margin.
  image.fit = input.fit == "shortest" ? "crop" : input.fit;
  return dataset;
}

namespace {

// nn::CopyWithFreshHead; for a program that has parts of them (parallel.tensor), through copies of
// the whole ones. What begins anew keeps its values: heads are not divided.
Result<nn::CopiedWeights> CopyIntoSlices(const nn::SourceTensors& tensors,
                                         nn::TrainingProgram& program) {
  const std::vector<nn::ParameterView>& mine = program.parameters();
  const std::span<float> weights = program.weights();
  const auto cut = [](const nn::ParameterView& view) { return view.slice.cut(); };
  if (std::none_of(mine.begin(), mine.end(), cut)) {
    return nn::CopyWithFreshHead(tensors, mine, weights);
  }
  const std::vector<nn::ParameterView> whole = nn::WholeParameters(mine);
  std::vector<float> all(static_cast<size_t>(nn::ElementsOf(whole)));
  const auto of = [](auto values, const nn::ParameterView& view) {
    return values.subspan(static_cast<size_t>(view.offset), static_cast<size_t>(view.size));
  };
  for (size_t i = 0; i < mine.size(); ++i) {
    const std::span<const float> values = of(weights, mine[i]);
    if (!cut(mine[i]))
      std::copy(values.begin(), values.end(), of(std::span(all), whole[i]).begin());
  }
  LEPTON_ASSIGN_OR_RETURN(nn::CopiedWeights copied, nn::CopyWithFreshHead(tensors, whole, all));
  for (size_t i = 0; i < mine.size(); ++i) {
    nn::TakePart(mine[i].shape, mine[i].slice, of(std::span(all), whole[i]), of(weights, mine[i]));
  }
  return copied;
}

}  // namespace

Status StartFrom(const StoredModel& from, const PreparedData& data, bool leader,
                 nn::TrainingProgram& program) {
  if (from.model.arch == "mlp" || from.model.arch == "onnx") {
    return CopyWeights(from, program.parameters(), program.weights());
  }
  nn::SourceTensors tensors = from.tensors;
  // The answers of other classes say nothing of these.
  for (const nn::ParameterView& view : program.parameters()) {
    const bool answers = view.head && view.shape.front() == program.signature().outputs;
    if (answers && from.manifest.classes != data.classes) tensors.erase(view.name);
  }
  LEPTON_ASSIGN_OR_RETURN(const nn::CopiedWeights copied, CopyIntoSlices(tensors, program));
  if (leader && !copied.fresh.empty()) {
    LOG(INFO) << fmt::format("begin anew: {}", fmt::join(copied.fresh, ", "));
  }
  return Status::Ok();
}

std::map<std::string, storage::Digest> KeptFiles(const StoredModel& from) {
  std::map<std::string, storage::Digest> files;
  for (const auto& [name, digest] : from.manifest.files) {
    if (!IsFurtherWeights(name)) files[name] = digest;
  }
  return files;
}

}  // namespace lepton::worker
