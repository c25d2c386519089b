// Every input that once broke a parser, and the seeds, through the same targets without libFuzzer;
// then thousands of inputs made of the seeds by flips, cuts and joins, the same ones each time.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/base/file.h"
#include "tests/fuzz/fuzz_target.h"

namespace lepton::fuzz {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Inputs(const FuzzTarget& target, const char* kind) {
  std::vector<fs::path> files;
  const fs::path folder = fs::path(LEPTON_FUZZ_DIR) / kind / target.name;
  if (fs::exists(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const fs::path& file : files) {
    auto bytes = ReadFile(file);
    EXPECT_TRUE(bytes.ok()) << file;
    if (bytes.ok()) inputs.push_back(*std::move(bytes));
  }
  return inputs;
}

class Next {
 public:
  uint64_t operator()(uint64_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return bound == 0 ? 0 : (state_ >> 33) % bound;
  }

 private:
  uint64_t state_ = 1;
};

std::string Mutated(const std::vector<std::string>& seeds, Next& next) {
  std::string bytes = seeds[next(seeds.size())];
  const std::string& other = seeds[next(seeds.size())];
  if (next(4) == 0)
    bytes = bytes.substr(0, next(bytes.size() + 1)) + other.substr(next(other.size()));
  for (uint64_t flips = next(4); flips > 0 && !bytes.empty(); --flips) {
    bytes[next(bytes.size())] = static_cast<char>(next(256));
  }
  if (next(8) == 0) bytes.resize(next(bytes.size() + 1));
  return bytes;
}

TEST(Fuzz, EveryTargetHasSeeds) {
  for (const FuzzTarget& target : FuzzTargets()) {
    EXPECT_FALSE(Inputs(target, "seeds").empty()) << target.name << ": tests/fuzz/make_seeds.py";
  }
}

TEST(Fuzz, WhatBrokeAParserOnceIsRefusedOrRead) {
  for (const FuzzTarget& target : FuzzTargets()) {
    for (const std::string& input : Inputs(target, "regressions")) target.run(input);
    for (const std::string& input : Inputs(target, "seeds")) target.run(input);
  }
}

TEST(Fuzz, MutatedSeedsNeverCrash) {
  for (const FuzzTarget& target : FuzzTargets()) {
    const std::vector<std::string> seeds = Inputs(target, "seeds");
    if (seeds.empty()) continue;
    Next next;
    for (int round = 0; round < 300; ++round) {
      std::string input = Mutated(seeds, next);
      input.resize(std::min(input.size(), target.max_bytes));
      target.run(input);
    }
  }
}

}  // namespace
}  // namespace lepton::fuzz
