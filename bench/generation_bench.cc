// How fast a language model goes on; bench/generation_torch.py drives this and its peer.
//   generation_bench PRECISION TEXTS PROMPT TOKENS FOLDER
//       writes the weights to FOLDER (weights.bin, by the names and shapes of weights.txt), then
//       gives TEXTS texts of PROMPT tokens TOKENS more each, the likeliest ones. A line each:
//       "prompt_ms N", all prompts read; "token_ms N", the median time in which all texts got one
//       token more; "peak_mib N"; and the tokens of each text.
// GPT-2's smallest size: 12 layers, 12 heads, 768 wide, 50,257 tokens, context 1,024.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/training_program.h"

namespace {

using namespace lepton;
using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

// From a fixed linear congruential generator (Knuth's MMIX).
class Numbers {
 public:
  uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }

 private:
  uint64_t state_ = 1;
};

long PeakMib() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmHWM:", 0) == 0) return std::atol(line.c_str() + 6) / 1024;
  }
  return 0;
}

struct Language {
  spec::ModelSpec model;
  nn::Signature signature;
  std::vector<float> weights;
};

Language Make() {
  Language language;
  language.model.arch = "transformer";
  language.model.transformer.style = "gpt2";
  language.model.transformer.layers = 12;
  language.model.transformer.heads = 12;
  language.model.transformer.width = 768;
  language.model.activation = "gelu_tanh";
  nn::DataShape data{.kind = nn::DataShape::Kind::kTokens,
                     .vocabulary = 50257,
                     .context = 1024,
                     .outputs = 50257,
                     .per_token = true};
  language.model = nn::ResolveModel(language.model, data).value();
  language.signature = nn::MakeSignature(language.model, data).value();
  return language;
}

int Run(const std::string& precision, int64_t texts, int64_t prompt, int64_t tokens,
        const std::string& folder) {
  Language language = Make();
  auto program = nn::InferenceProgram::Build(language.signature, language.model, precision).value();
  Numbers numbers;
  std::string names;
  const std::span<float> weights = program->weights();
  for (const nn::ParameterView& parameter : program->parameters()) {
    names += parameter.name;
    for (const int64_t extent : parameter.shape) names += " " + std::to_string(extent);
    names += "\n";
    // Norms' gains about 1; the others as in GPT-2, a little larger so that tokens differ.
    const bool gain = parameter.shape.size() == 1 && parameter.name.ends_with("weight");
    for (int64_t i = 0; i < parameter.size; ++i) {
      const float unit = static_cast<float>(numbers.Next() >> 8) / float{1 << 22} - 1.0f;
      weights[parameter.offset + i] = gain ? 1 + 0.1f * unit : 0.07f * unit;
    }
  }
  std::ofstream(folder + "/weights.txt") << names;
  std::ofstream(folder + "/weights.bin", std::ios::binary)
      .write(reinterpret_cast<const char*>(weights.data()),
             static_cast<std::streamsize>(weights.size_bytes()));
  if (!program->Prepare().ok()) return 1;
  auto decoder =
      program->MakeDecoder({.slots = texts, .context = std::min<int64_t>(1024, prompt + tokens)})
          .value();
  const auto outputs = static_cast<size_t>(language.signature.outputs);
  std::vector<std::vector<int32_t>> ids(static_cast<size_t>(texts));
  for (auto& text : ids) {
    for (int64_t i = 0; i < prompt; ++i)
      text.push_back(static_cast<int32_t>(numbers.Next() % outputs));
  }
  std::vector<float> logits(ids.size() * outputs);
  std::vector<double> times;
  // The first time plans are made and weights packed.
  for (int round = 0; round < 2; ++round) {
    for (int64_t slot = 0; slot < texts; ++slot) decoder->Truncate(slot, 0);
    for (auto& text : ids) text.resize(static_cast<size_t>(prompt));
    times.clear();
    for (int64_t token = 0; token < tokens; ++token) {
      std::vector<nn::DecodingProgram::Extension> extensions;
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto known = static_cast<size_t>(decoder->length(static_cast<int64_t>(i)));
        extensions.push_back({static_cast<int64_t>(i), std::span(ids[i]).subspan(known)});
      }
      const auto begin = Clock::now();
      if (!decoder->Extend(extensions, logits).ok()) return 1;
      times.push_back(Since(begin));
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto first = logits.begin() + static_cast<int64_t>(i * outputs);
        ids[i].push_back(static_cast<int32_t>(std::max_element(first, first + outputs) - first));
      }
      if (round == 0 && token == 1) break;
    }
  }
  fmt::print("prompt_ms {:.2f}\n", times.front());
  std::sort(times.begin() + 1, times.end());
  fmt::print("token_ms {:.3f}\n", times[1 + (times.size() - 1) / 2]);
  fmt::print("peak_mib {}\n", PeakMib());
  for (const auto& text : ids) {
    for (const int32_t id : text) fmt::print("{} ", id);
    fmt::print("\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: generation_bench f32|bf16|int8 TEXTS PROMPT TOKENS FOLDER\n";
    return 2;
  }
  return Run(argv[1], std::atol(argv[2]), std::atol(argv[3]), std::atol(argv[4]), argv[5]);
}
