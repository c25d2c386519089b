// What asking a language model costs.
#include "worker/batch/row_asker.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/base/file.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "runtime/nn/model_list.h"
#include "tests/runtime/nn/texts.h"
#include "worker/data/text_rows.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

constexpr int64_t kVocabulary = 32'768, kContext = 2'048;
constexpr int64_t kLogits = kVocabulary * kContext * 4;  // 256 MiB

// The most that this process ever had since the last call of ForgetPeak.
int64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kilobytes = 0;
    std::string name;
    if (std::istringstream(line) >> name >> kilobytes && name == "VmHWM:") return kilobytes << 10;
  }
  return -1;
}
bool ForgetPeak() {
  ::malloc_trim(0);
  return static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush);
}

// A language model of few weights and many tokens.
storage::Digest StoreNarrow(storage::ObjectStore& objects) {
  spec::ModelSpec model = spec::DefaultModel("transformer", "llama");
  model.transformer.layers = 1;
  model.transformer.width = 16;
  model.transformer.heads = model.transformer.kv_heads = 2;
  const auto built =
      nn::Resolve(model, nn::TextShape(kVocabulary, kContext, kVocabulary, /*per_token=*/true));
  const auto program = nn::InferenceProgram::Build(built.signature, built.model, "f32").value();
  std::vector<std::vector<float>> data;
  std::vector<safetensors::TensorView> views;
  for (const nn::ParameterView& parameter : program->parameters()) {
    std::vector<float>& values = data.emplace_back();
    for (int64_t i = 0; i < parameter.size; ++i) {
      values.push_back(static_cast<float>(i * i % 65 - 32) / 64);
    }
  }
  for (size_t i = 0; i < data.size(); ++i) {
    const nn::ParameterView& parameter = program->parameters()[i];
    views.push_back({parameter.name, "F32", parameter.shape,
                     std::string_view(reinterpret_cast<const char*>(data[i].data()),
                                      data[i].size() * sizeof(float))});
  }
  storage::ModelManifest manifest;
  manifest.model_spec_json = ModelSpecToText(built.model);
  manifest.loss = "next_token";
  manifest.precision = "f32";
  manifest.input = {
      .kind = "tokens", .vocabulary = kVocabulary, .context = kContext, .per_token = true};
  manifest.weights = objects.Put(safetensors::Serialize(views).value()).value();
  manifest.weights_sha256 = safetensors::WeightsDigest(views);
  return objects.Put(storage::ToText(manifest)).value();
}

std::shared_ptr<const TokenRows> Prompts(const std::string& folder,
                                         const std::vector<int64_t>& lengths) {
  auto rows = std::make_shared<TokenRows>();
  std::string ids;
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      const auto id = static_cast<uint16_t>(i * 7919 % kVocabulary);
      ids.append(reinterpret_cast<const char*>(&id), sizeof(id));
    }
    rows->ends.push_back(static_cast<int64_t>(ids.size() / 2));
  }
  EXPECT_TRUE(WriteFileAtomic(folder + "/ids", ids).ok());
  rows->tokens = std::make_shared<const TokenStream>(
      std::make_shared<const MappedFile>(MappedFile::Open(folder + "/ids").value()), 2, 0,
      rows->ends.back());
  return rows;
}

// The prompt is read once, by what goes on from it.
TEST(RowAsker, WithoutLossesNoTokensLogitsAreMadeButTheLast) {
  const TempFolder folder;
  const auto objects = storage::ObjectStore::Open(folder.path()).value();
  const auto model = LoadedModel::Load(*objects, StoreNarrow(*objects)).value();
  const auto rows = Prompts(folder.path(), {2'000, 3, 1'500});
  const TextRows examples(rows, {0, 1, 2}, kContext, /*next_token=*/true);
  spec::GenerateSpec generate;
  generate.max_tokens = 3;
  PredictionWriter::Options options{
      .format = "jsonl", .kind = PredictionWriter::Kind::kTokens, .generated = true};
  const auto ask = [&](bool losses, TokenSums* sums, int64_t* grown) {
    options.losses = losses;
    const PredictionWriter writer(options);
    RowAsker asker(*model, examples, writer, generate, {});
    const bool forgot = ForgetPeak();
    const int64_t before = PeakBytes();
    const std::string lines = asker.Ask(0, 3, sums).value();
    *grown = forgot ? PeakBytes() - before : -1;
    std::vector<nlohmann::json> answers;
    std::istringstream in(lines);
    for (std::string line; std::getline(in, line);) answers.push_back(nlohmann::json::parse(line));
    return answers;
  };
  TokenSums none, all;
  int64_t without = 0, with = 0;
  const auto brief = ask(false, &none, &without);
  const auto whole = ask(true, &all, &with);
  ASSERT_EQ(brief.size(), 3u);
  ASSERT_EQ(whole.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(brief[i]["generated"], whole[i]["generated"]);
    EXPECT_NE(brief[i]["generated"], "");
    EXPECT_FALSE(brief[i].contains("loss"));
    EXPECT_TRUE(whole[i]["loss"].is_number());
  }
  EXPECT_EQ(none.tokens, 0);
  EXPECT_EQ(all.tokens, 1'999 + 2 + 1'499);
  if (without < 0) GTEST_SKIP() << "the kernel does not forget a peak";
#if !defined(LEPTON_TSAN) && !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(without, kLogits / 4);
  // 64 MiB of them at a time.
  EXPECT_GT(with, kLogits / 6) << "the measure sees logits";
  EXPECT_LT(with, kLogits / 2);
#endif
}

}  // namespace
}  // namespace lepton::worker
