#include "worker/models/huggingface_models.h"

#include <glog/logging.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/formats/huggingface/folder_archive.h"
#include "runtime/formats/huggingface/preprocessor.h"
#include "runtime/nn/forward_program.h"
#include "runtime/nn/model_list.h"
#include "worker/data/prepared_data.h"
#include "worker/data/text_encoder.h"
#include "worker/models/stored_folder.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

using huggingface::Config;
using huggingface::Folder;
using Task = Config::Task;

constexpr char kPreprocessor[] = "preprocessor_config.json";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr int64_t kUsualSide = 224;  // of pictures, where a folder does not say it

bool Has(const Folder& folder, const char* file) {
  return std::find(folder.files.begin(), folder.files.end(), file) != folder.files.end();
}

// As the families' own code takes a single label of which nothing is said.
bool IsNumber(const Config& config) {
  return config.problem_type.empty() && config.labels.size() == 1 &&
         (config.task == Task::kTextClassification || config.task == Task::kImageClassification);
}

Status ChooseLoss(const Config& config, storage::ModelManifest& manifest) {
  manifest.classes = config.labels;
  manifest.loss = "cross_entropy";
  if (config.task == Task::kBase) {
    manifest.loss = "mse";  // numbers
  } else if (config.task == Task::kLanguageModel) {
    manifest.loss = "next_token";
  } else if (config.problem_type == "regression" || IsNumber(config) ||
             config.problem_type == "multi_label_classification") {
    if (config.labels.size() != 1) {
      return InvalidArgument("config.json: problem_type: " + config.problem_type +
                             " with several outputs is not supported: must have one");
    }
    const bool binary = config.problem_type == "multi_label_classification";
    const std::string& label = config.labels[0];
    manifest.loss = binary ? "binary_cross_entropy" : "mse";
    manifest.classes = config.classes;
    if (binary && manifest.classes.empty()) {
      manifest.classes = {huggingface::OtherClass(label), label};
    }
  } else if (config.labels.size() < 2) {
    return InvalidArgument("config.json: id2label: a classification needs at least 2 labels");
  }
  return Status::Ok();
}

Status DescribeImages(const Config& config, const Folder& folder, const huggingface::OpenFile& open,
                      storage::ModelManifest& manifest) {
  const spec::ImageSpec& image = config.model.image;
  storage::ModelInput& input = manifest.input;
  input.kind = "images";
  input.channels = image.channels;
  input.mean.assign(image.channels, 0.0);
  input.scale.assign(image.channels, 1.0);
  input.height = image.height > 0 ? image.height : kUsualSide;
  input.width = image.width > 0 ? image.width : kUsualSide;
  if (!Has(folder, kPreprocessor)) return Status::Ok();
  LEPTON_ASSIGN_OR_RETURN(
      const std::string text,
      huggingface::ReadSmallFile(open, kPreprocessor, huggingface::kMaxConfigBytes));
  LEPTON_ASSIGN_OR_RETURN(const huggingface::ImagePreparation preparation,
                          huggingface::ParsePreprocessor(text, image.channels));
  input.mean = preparation.mean;
  input.scale = preparation.scale;
  input.fit = preparation.fit;
  input.edge = preparation.edge;
  input.resample = preparation.resample;
  if (image.height > 0 &&
      (preparation.height != image.height || preparation.width != image.width)) {
    return InvalidArgument(std::string(kPreprocessor) + ": size: is not the model's image_size");
  }
  input.height = preparation.height;
  input.width = preparation.width;
  manifest.feature_names = preparation.columns;
  return Status::Ok();
}

storage::ModelInput DescribeTexts(const Config& config) {
  storage::ModelInput input;
  input.kind = "tokens";
  input.vocabulary = config.model.transformer.vocabulary;
  input.context = config.model.transformer.context;
  if (config.text_tokens > 0) input.context = std::min(input.context, config.text_tokens);
  input.per_token =
      config.task == Task::kLanguageModel || config.task == Task::kTokenClassification;
  return input;
}

// The parameters of the architecture against the tensors that are there, before any is read.
Status CheckTensors(const Folder& folder, const nn::Signature& signature,
                    const spec::ModelSpec& model, storage::ModelManifest& manifest) {
  LEPTON_ASSIGN_OR_RETURN(const auto program, nn::ForwardProgram::Build(signature, model, "f32"));
  std::map<std::string, std::pair<std::string, std::vector<int64_t>>> tensors;
  for (const huggingface::Shard& shard : folder.shards) {
    for (const auto& place : shard.tensors) tensors[place.name] = {shard.file, place.shape};
  }
  for (const auto& parameter : program->parameters()) {
    const nn::ParameterView& view = parameter.view;
    const auto found = tensors.find(view.name);
    if (found == tensors.end()) {
      return InvalidArgument(folder.shards[0].file + ": \"" + view.name + "\" is missing");
    }
    const auto& [file, shape] = found->second;
    if (shape != view.shape) {
      return InvalidArgument(file + ": \"" + view.name + "\": is " + Shape(shape).ToString() +
                             "; config.json wants " + Shape(view.shape).ToString());
    }
    manifest.parameters += view.size;
    tensors.erase(found);
  }
  if (tensors.empty()) return Status::Ok();
  const auto& [name, rest] = *tensors.begin();
  return InvalidArgument(rest.first + ": \"" + name + "\" is no weight of the " +
                         folder.config.architecture + " that config.json describes");
}

Result<storage::Digest> StoreShard(storage::ObjectStore& objects, const huggingface::OpenFile& open,
                                   const huggingface::Shard& shard) {
  LEPTON_ASSIGN_OR_RETURN(const safetensors::FileStart start,
                          safetensors::SerializeStart(shard.tensors, {{"format", "pt"}}));
  LEPTON_ASSIGN_OR_RETURN(const auto writer, objects.NewObject());
  LEPTON_RETURN_IF_ERROR(writer->Append(start.bytes));
  for (const size_t i : start.order) {
    const safetensors::TensorPlace& place = shard.tensors[i];
    LEPTON_RETURN_IF_ERROR(
        huggingface::ReadPieces(open, shard.file, place.begin, place.end,
                                [&](std::string_view piece) { return writer->Append(piece); }));
  }
  return writer->Finish();
}

Status StoreFiles(storage::ObjectStore& objects, const huggingface::OpenFile& open,
                  const Folder& folder, storage::ModelManifest& manifest) {
  LEPTON_ASSIGN_OR_RETURN(manifest.files["config.json"], objects.Put(folder.config_json));
  for (const std::string& file : folder.files) {
    LEPTON_ASSIGN_OR_RETURN(
        const std::string bytes,
        huggingface::ReadSmallFile(open, file, huggingface::kMaxSmallFileBytes));
    if (manifest.input.kind == "tokens" && file == kTokenizer && bytes == BytesAsTokenizerJson()) {
      manifest.input.tokenizer = "bytes";  // as it was before it left
      continue;
    }
    LEPTON_ASSIGN_OR_RETURN(manifest.files[file], objects.Put(bytes));
  }
  if (const auto tokenizer = manifest.files.find(kTokenizer);
      manifest.input.kind == "tokens" && tokenizer != manifest.files.end()) {
    manifest.input.tokenizer = tokenizer->second;
  }
  for (size_t i = 0; i < folder.shards.size(); ++i) {
    LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest,
                            StoreShard(objects, open, folder.shards[i]));
    if (i == 0) {
      manifest.weights = digest;
    } else {
      manifest.files[FurtherWeights(i)] = digest;
    }
  }
  return Status::Ok();
}

// What a stored model does, as configs say it.
Task TaskOf(const StoredModel& stored) {
  const storage::ModelInput& input = stored.manifest.input;
  if (stored.model.head == "none") return Task::kBase;
  if (input.kind == "images") return Task::kImageClassification;
  if (!input.per_token) return Task::kTextClassification;
  return stored.manifest.loss == "next_token" ? Task::kLanguageModel : Task::kTokenClassification;
}

Result<std::string> ConfigOf(const storage::ObjectStore& objects, const StoredModel& stored) {
  const storage::ModelManifest& manifest = stored.manifest;
  std::vector<std::string> labels = manifest.classes;
  std::string problem;
  if (manifest.loss == "mse") {
    labels = {"LABEL_0"};
    problem = "regression";
  } else if (manifest.loss == "binary_cross_entropy") {
    if (labels.size() != 2) labels = {"LABEL_0"};
    problem = "multi_label_classification";
  }
  std::string original;
  if (const auto kept = manifest.files.find("config.json"); kept != manifest.files.end()) {
    LEPTON_ASSIGN_OR_RETURN(original, objects.Get(kept->second));
  }
  const auto halves = [&](DType dtype) {
    return std::any_of(stored.tensors.begin(), stored.tensors.end(),
                       [&](const auto& tensor) { return tensor.second.dtype == dtype; });
  };
  const char* const type = halves(DType::kBF16)  ? "bfloat16"
                           : halves(DType::kF16) ? "float16"
                                                 : "float32";
  return huggingface::WriteConfig(stored.model, TaskOf(stored), labels, problem, original, type);
}

// Public code of batch norms wants to know how many batches there were.
void AddBatchCounts(std::vector<safetensors::TensorView>& views, const int64_t* steps) {
  constexpr std::string_view kVariance = "running_var";
  const size_t count = views.size();
  for (size_t i = 0; i < count; ++i) {
    std::string name = views[i].name;
    if (!name.ends_with(kVariance)) continue;
    name.replace(name.size() - kVariance.size(), kVariance.size(), "num_batches_tracked");
    views.push_back({name, "I64", {}, {reinterpret_cast<const char*>(steps), sizeof(*steps)}});
  }
}

// In pieces: a model may be larger than memory.
Status WriteWeights(const StoredModel& stored, const std::filesystem::path& folder) {
  std::vector<safetensors::TensorView> views = WeightViews(stored);
  const int64_t steps = stored.manifest.steps;
  AddBatchCounts(views, &steps);
  std::vector<safetensors::TensorPlace> places;
  for (const auto& view : views) places.push_back({view.name, view.dtype, view.shape});
  LEPTON_ASSIGN_OR_RETURN(const safetensors::FileStart start,
                          safetensors::SerializeStart(places, {{"format", "pt"}}));
  return WriteFileAtomic(folder / "model.safetensors", [&](int fd) {
    LEPTON_RETURN_IF_ERROR(WriteAll(fd, start.bytes));
    for (const size_t i : start.order) LEPTON_RETURN_IF_ERROR(WriteAll(fd, views[i].bytes));
    return Status::Ok();
  });
}

Status WriteFurtherFiles(const storage::ObjectStore& objects, const StoredModel& stored,
                         const std::filesystem::path& folder) {
  const storage::ModelManifest& manifest = stored.manifest;
  std::map<std::string, storage::Digest> files = manifest.files;
  const std::string& tokenizer = manifest.input.tokenizer;
  if (storage::IsDigest(tokenizer)) files[kTokenizer] = tokenizer;
  for (const auto& [name, digest] : files) {
    if (name == "config.json" || IsFurtherWeights(name) || name == kPreprocessor) continue;
    if (name.empty() || name[0] == '.' || name.find('/') != name.npos) {
      return DataLoss("the model's manifest names a file \"" + name + "\"");
    }
    LEPTON_ASSIGN_OR_RETURN(const std::string bytes, objects.Get(digest));
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / name, bytes));
  }
  if (tokenizer == "bytes") {
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / kTokenizer, BytesAsTokenizerJson()));
  }
  if (manifest.input.kind != "images") return Status::Ok();
  const storage::ModelInput& in = manifest.input;
  return WriteFileAtomic(
      folder / kPreprocessor,
      huggingface::WritePreprocessor({in.height, in.width, in.fit, in.mean, in.scale, in.edge,
                                      in.resample, manifest.feature_names}));
}

// For a body whose answer is a row for each text, how others make it of the tokens.
Status WriteModules(const StoredModel& stored, const std::filesystem::path& folder) {
  const storage::ModelInput& input = stored.manifest.input;
  if (TaskOf(stored) != Task::kBase || stored.model.arch != "transformer" || input.per_token ||
      stored.model.transformer.pooler) {
    return Status::Ok();
  }
  for (const auto& [name, text] : huggingface::SentenceModules(stored.model, input.context)) {
    LEPTON_RETURN_IF_ERROR(MakeFolders((folder / name).parent_path()));
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / name, text));
  }
  return Status::Ok();
}

Result<StoredFolder> ImportAny(storage::ObjectStore& objects, const huggingface::OpenFile& open) {
  if (IsStoredFolder(open)) return ImportStoredFolder(objects, open);
  const Status config = open("config.json").status();
  if (config.code() == StatusCode::kNotFound) {
    return NotFound(config.message() + "; nor is there a manifest.json, which runs leave");
  }
  return ImportFolder(objects, open);
}

}  // namespace

bool HasFolderForm(const std::string& arch) {
  return arch == "transformer" || arch == "vit" || spec::IsResnet(arch);
}

Result<StoredFolder> ImportFolder(storage::ObjectStore& objects,
                                  const huggingface::OpenFile& open) {
  LEPTON_ASSIGN_OR_RETURN(const Folder folder, huggingface::ReadFolder(open));
  const Config& config = folder.config;
  StoredFolder stored;
  storage::ModelManifest& manifest = stored.content;
  LEPTON_RETURN_IF_ERROR(ChooseLoss(config, manifest));
  manifest.precision = "f32";
  manifest.label_name = "label";
  if (config.model.arch == "transformer") {
    manifest.input = DescribeTexts(config);
  } else {
    LEPTON_RETURN_IF_ERROR(DescribeImages(config, folder, open, manifest));
  }
  manifest.model_spec_json = ModelSpecToText(config.model);
  const nn::DataShape data = ShapeOf(manifest);
  LEPTON_ASSIGN_OR_RETURN(const spec::ModelSpec model, nn::ResolveModel(config.model, data));
  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature, nn::MakeSignature(model, data));
  LEPTON_RETURN_IF_ERROR(CheckTensors(folder, signature, model, manifest));
  manifest.model_spec_json = ModelSpecToText(model);
  LEPTON_RETURN_IF_ERROR(StoreFiles(objects, open, folder, manifest));
  LEPTON_ASSIGN_OR_RETURN(manifest.weights_sha256, DigestOfWeights(objects, manifest));
  LEPTON_ASSIGN_OR_RETURN(stored.manifest, objects.Put(storage::ToText(manifest)));
  stored.objects = {stored.manifest, manifest.weights};
  for (const auto& [name, digest] : manifest.files) stored.objects.push_back(digest);
  return stored;
}

Result<StoredFolder> ImportOpened(
    storage::ObjectStore& objects,
    const std::function<Result<UniqueFd>(const std::string& name)>& open) {
  return ImportAny(objects, [&](const std::string& name) -> Result<huggingface::OpenedFile> {
    LEPTON_ASSIGN_OR_RETURN(UniqueFd fd, open(name));
    return huggingface::WholeFile(std::move(fd), name);
  });
}

Result<StoredFolder> ImportArchive(storage::ObjectStore& objects, UniqueFd archive) {
  LEPTON_ASSIGN_OR_RETURN(const huggingface::OpenFile open,
                          huggingface::OpenFilesOfArchive(std::move(archive)));
  return ImportAny(objects, open);
}

bool IsFolderArchive(std::string_view start) {
  return huggingface::IsArchive(start);
}

Result<std::string> PackFolder(const std::filesystem::path& folder, uint64_t limit_bytes) {
  LEPTON_ASSIGN_OR_RETURN(const huggingface::OpenFile open, huggingface::OpenFilesOf(folder));
  std::vector<std::string> names;
  if (IsStoredFolder(open)) {
    LEPTON_ASSIGN_OR_RETURN(names, FilesOfStoredFolder(open));
  } else {
    LEPTON_ASSIGN_OR_RETURN(const Folder content, huggingface::ReadFolder(open));
    names = huggingface::FilesOf(content);
  }
  std::string bytes;
  LEPTON_RETURN_IF_ERROR(
      huggingface::WriteArchive(open, names, [&](std::string_view piece) -> Status {
        if (bytes.size() + piece.size() > limit_bytes) {
          return ResourceExhausted("the model has more than " + std::to_string(limit_bytes) +
                                   " bytes");
        }
        bytes += piece;
        return Status::Ok();
      }));
  return bytes;
}

Status ExportFolder(const storage::ObjectStore& objects, const storage::Digest& manifest,
                    const std::filesystem::path& folder) {
  LEPTON_ASSIGN_OR_RETURN(const StoredModel stored, LoadModel(objects, manifest));
  LEPTON_ASSIGN_OR_RETURN(const std::string config, ConfigOf(objects, stored));
  LEPTON_RETURN_IF_ERROR(MakeFolders(folder));
  LEPTON_RETURN_IF_ERROR(WriteWeights(stored, folder));
  LEPTON_RETURN_IF_ERROR(WriteFurtherFiles(objects, stored, folder));
  LEPTON_RETURN_IF_ERROR(WriteModules(stored, folder));
  return WriteFileAtomic(folder / "config.json", config);  // last: with it the folder is whole
}

}  // namespace lepton::worker
