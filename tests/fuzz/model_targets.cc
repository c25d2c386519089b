// Models and their parts: ONNX, safetensors, tokenizers, chat templates, pictures.
#include <sys/mman.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "runtime/formats/huggingface/folder.h"
#include "runtime/formats/huggingface/folder_archive.h"
#include "runtime/formats/huggingface/preprocessor.h"
#include "runtime/formats/image/image.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/model_file.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/formats/tokenizer/chat_template.h"
#include "runtime/formats/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

namespace lepton::fuzz {
namespace {

constexpr onnx::Limits kSmall{.value_bytes = 1 << 16, .total_bytes = 1 << 20, .nodes = 256};

void RunImported(onnx::ImportedModel& model) {
  onnx::NamedValues inputs;
  for (const onnx::NamedRef& input : model.inputs) {
    if (input.ref.kind != onnx::HostValue::Kind::kTensor) return;
    TensorType type = model.graph->type(input.ref.id);
    type.shape = type.shape.WithBatch(2, 3);
    inputs[input.name].kind = onnx::HostValue::Kind::kTensor;
    inputs[input.name].tensor = onnx::HostTensor(type);
  }
  (void)onnx::Run(model, inputs);
}

}  // namespace

// External data is of the file "w.bin", of 64 bytes.
void FuzzOnnxModel(std::string_view bytes) {
  static const std::filesystem::path external = [] {
    const std::filesystem::path folder = ScratchFolder() / "external";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "w.bin") << std::string(64, '\x3e');
    return folder;
  }();
  onnx_proto::ModelProto proto;
  if (!onnx::ParseModel(bytes, &proto).ok()) return;
  for (const bool open : {false, true}) {
    onnx::ImportOptions options;
    options.limits = kSmall;
    options.external = external;
    options.open = open;
    auto model = onnx::Import(proto, {}, options);
    if (model.ok()) RunImported(*model);
  }
}

// As `lepton model add` and the coordinator do: taken apart, put into a graph with its batch open,
// and put together again.
void FuzzOnnxParts(std::string_view bytes) {
  const auto apart = onnx::TakeApart(bytes, {}, kSmall);
  if (!apart.ok()) return;
  std::map<std::string, TensorView> weights;
  for (const onnx::NamedTensor& weight : apart->weights) {
    weights[weight.name] = {const_cast<void*>(weight.tensor.data.data()), weight.tensor.type};
  }
  onnx::PutTogetherOptions options;
  options.normalize = apart->normalize;
  options.metadata = apart->metadata;
  (void)onnx::PutTogether(apart->graph, weights, options);
  onnx_proto::ModelProto proto;
  if (!onnx::ParseModel(apart->graph, &proto).ok()) return;
  graph::Graph graph(onnx::ImportOps());
  onnx::Embedding embedding;
  embedding.graph = &graph;
  for (const auto& info : proto.graph().input()) {
    const auto dtype = onnx::DTypeFromCode(info.type().tensor_type().elem_type());
    if (!dtype.ok()) return;
    std::vector<int64_t> extents;
    for (const auto& dim : info.type().tensor_type().shape().dim()) {
      extents.push_back(extents.empty()       ? Shape::kBatch
                        : dim.dim_value() > 0 ? std::min<int64_t>(dim.dim_value(), 1 << 16)
                                              : Shape::kSequence);
    }
    embedding.inputs[info.name()] = graph.AddInput(info.name(), {*dtype, Shape(extents)});
  }
  embedding.parameter = [&](const std::string& name, const TensorType& type) {
    return graph.AddParameter(name, type);
  };
  onnx::ImportOptions limited;
  limited.limits = kSmall;
  (void)onnx::ImportInto(proto, embedding, limited);
}

void FuzzOnnxTensor(std::string_view bytes) {
  if (bytes.empty()) return;
  onnx_proto::TypeProto type;
  onnx_proto::TypeProto* inner = &type;
  if (bytes[0] % 3 == 1) inner = type.mutable_sequence_type()->mutable_elem_type();
  if (bytes[0] % 3 == 2) inner = type.mutable_optional_type()->mutable_elem_type();
  inner->mutable_tensor_type()->set_elem_type(1);
  const auto value = onnx::ParseValue(bytes.substr(1), type);
  if (value.ok() && value->kind == onnx::HostValue::Kind::kTensor) {
    (void)onnx::AsIntegers(value->tensor);
    (void)onnx::AsDoubles(value->tensor);
  }
}

// Files of a folder, with a line between two, in this order.
void FuzzModelFolder(std::string_view bytes) {
  constexpr std::string_view kBetween = "\n----\n";
  std::map<std::string, std::string_view> files;
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "preprocessor_config.json", "modules.json", "1_Pooling/config.json",
                           "sentence_bert_config.json", "config_sentence_transformers.json",
                           "tokenizer_config.json"}) {
    const size_t end = std::min(bytes.find(kBetween), bytes.size());
    if (end > 0) files[name] = bytes.substr(0, end);
    bytes.remove_prefix(std::min(bytes.size(), end + kBetween.size()));
  }
  const auto open = [&](const std::string& name) -> Result<huggingface::OpenedFile> {
    const auto found = files.find(name);
    if (found == files.end()) return NotFound(name);
    UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
    LEPTON_RETURN_IF_ERROR(WriteAll(fd.get(), found->second));
    return huggingface::WholeFile(std::move(fd), name);
  };
  const auto folder = huggingface::ReadFolder(open);
  (void)huggingface::ParsePreprocessor(files["preprocessor_config.json"], 3);
  if (!folder.ok()) return;
  const huggingface::Config& config = folder->config;
  (void)huggingface::WriteConfig(config.model, config.task, config.labels, config.problem_type,
                                 folder->config_json);
}

void FuzzModelArchive(std::string_view bytes) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  if (!WriteAll(fd.get(), bytes).ok()) return;
  const auto open = huggingface::OpenFilesOfArchive(std::move(fd));
  if (!open.ok()) return;
  (void)huggingface::ReadFolder(*open);
}

void FuzzSafetensors(std::string_view bytes) {
  const auto file = safetensors::Parse(bytes);
  if (file.ok()) {
    (void)safetensors::WeightsDigest(file->tensors);
    (void)safetensors::Serialize(file->tensors, {});
  }
  (void)safetensors::ParseLayout(bytes, uint64_t{1} << 40);
}

void FuzzTokenizer(std::string_view bytes) {
  const auto tokenizer = tokenizer::Tokenizer::FromJson(bytes);
  if (!tokenizer.ok()) return;
  for (const std::string_view text :
       {"", "Hello, world! 123", "caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac  \n\t<s> [MASK]",
        "aaaaaaaa"}) {
    const auto ids = (*tokenizer)->EncodeIds(text);
    if (ids.ok()) (void)(*tokenizer)->Decode(*ids);
    (void)(*tokenizer)->Encode(text);
  }
  (void)(*tokenizer)->EncodePair("a b", "c");
}

// A template, or messages for one.
void FuzzChatTemplate(std::string_view bytes) {
  static const auto chatml =
      tokenizer::ChatTemplate::Parse(
          "{% for m in messages %}{{ m['role'] + m.content | trim }}"
          "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}")
          .value();
  (void)chatml->Render(bytes);
  const auto chat = tokenizer::ChatTemplate::Parse(bytes);
  if (!chat.ok()) return;
  (void)(*chat)->Render(
      R"({"messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"},
          {"role": "assistant", "content": "hello"}], "add_generation_prompt": true,
          "bos_token": "<s>", "eos_token": "</s>", "n": 3, "x": [1, 2.5, null, {"a": []}]})");
}

void FuzzImage(std::string_view bytes) {
  const image::Limits limits{.max_side = 256, .max_pixels = 1 << 14};
  (void)image::ReadInfo(bytes, limits);
  for (const int64_t channels : {1, 3}) {
    const auto picture = image::Decode(bytes, channels, limits);
    if (picture.ok()) (void)image::Resize(*picture, 8, 5);
  }
}

}  // namespace lepton::fuzz
