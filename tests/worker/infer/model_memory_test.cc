// What a served model takes in memory beside the pages of its mapped file.
#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <sstream>

#include "runtime/base/file.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/nn/model_list.h"
#include "tests/runtime/nn/texts.h"
#include "worker/infer/model_runtime.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

constexpr int64_t kVocabulary = 6000, kContext = 64;

// Of this process, and no file's.
int64_t AnonymousBytes() {
  ::malloc_trim(0);
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kilobytes = 0;
    std::string name;
    if (std::istringstream(line) >> name >> kilobytes && name == "RssAnon:") {
      return kilobytes << 10;
    }
  }
  return -1;
}

// A language model of some 40 million weights of `dtype`, as it is stored.
storage::Digest StoreLanguage(storage::ObjectStore& objects, DType dtype, int64_t* elements) {
  spec::ModelSpec model = spec::DefaultModel("transformer", "llama");
  model.transformer.layers = 3;
  model.transformer.width = 1024;
  model.transformer.heads = model.transformer.kv_heads = 8;
  const auto built =
      nn::Resolve(model, nn::TextShape(kVocabulary, kContext, kVocabulary, /*per_token=*/true));
  const auto program = nn::InferenceProgram::Build(built.signature, built.model, "f32").value();
  std::vector<std::string> data;
  std::vector<safetensors::TensorView> views;
  *elements = 0;
  for (const nn::ParameterView& parameter : program->parameters()) {
    std::string& bytes = data.emplace_back();
    for (int64_t i = 0; i < parameter.size; ++i) {
      // From -1/8 to 1/8, of few bits.
      const auto value = static_cast<float>(i * i % 65 - 32) / 256;
      const uint16_t half = dtype == DType::kBF16 ? BF16::FromFloat(value).bits
                                                  : static_cast<uint16_t>(0x2000 + i % 512);
      const bool whole = dtype == DType::kF32;
      bytes.append(
          whole ? reinterpret_cast<const char*>(&value) : reinterpret_cast<const char*>(&half),
          whole ? sizeof(value) : sizeof(half));
    }
    *elements += parameter.size;
  }
  const char* const name = dtype == DType::kF32 ? "F32" : dtype == DType::kBF16 ? "BF16" : "F16";
  for (size_t i = 0; i < data.size(); ++i) {
    views.push_back({program->parameters()[i].name, name, program->parameters()[i].shape, data[i]});
  }
  storage::ModelManifest manifest;
  manifest.model_spec_json = ModelSpecToText(built.model);
  manifest.loss = "next_token";
  manifest.precision = "bf16";
  manifest.input = {
      .kind = "tokens", .vocabulary = kVocabulary, .context = kContext, .per_token = true};
  manifest.weights = objects.Put(safetensors::Serialize(views).value()).value();
  manifest.weights_sha256 = safetensors::WeightsDigest(views);
  manifest.parameters = *elements;
  return objects.Put(storage::ToText(manifest)).value();
}

class ModelMemory : public ::testing::TestWithParam<DType> {};

// Texts of two batch sizes, and one that goes on.
TEST_P(ModelMemory, IsThatOfPackedWeightsWithoutACopyInF32) {
#if defined(LEPTON_TSAN) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer keeps memory of its own";
#endif
  const TempFolder folder;
  const auto objects = storage::ObjectStore::Open(folder.path()).value();
  int64_t elements = 0;
  const storage::Digest manifest = StoreLanguage(*objects, GetParam(), &elements);
  const int64_t before = AnonymousBytes();
  const auto model = LoadedModel::Load(*objects, manifest).value();
  for (const size_t rows : {1, 3}) {
    const nn::TextBatch batch(model->signature(), {rows, std::vector<int32_t>{1, 2, 3, 4}});
    std::vector<float> logits(static_cast<size_t>(batch.tokens() * kVocabulary));
    ASSERT_TRUE(model->Forward(batch.batch(), logits).ok());
  }
  nn::DecodingProgram* const decoder = model->Decoder({.slots = 2, .context = kContext}).value();
  std::vector<float> logits(kVocabulary);
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{1, 2, 3}, {4}}) {
    const nn::DecodingProgram::Extension extension[] = {{0, tokens}};
    ASSERT_TRUE(decoder->Extend(extension, logits).ok());
  }
  // In bf16 packed weights take half of what they take in f32; the table of tokens is not copied.
  EXPECT_LT(AnonymousBytes() - before, elements * 4 * 5 / 8);
}

INSTANTIATE_TEST_SUITE_P(Stored, ModelMemory,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

}  // namespace
}  // namespace lepton::worker
