// Tests of every stage of parallel.zero: the fixture of zero_test.cc and zero_death_test.cc.
#pragma once

#include <fmt/format.h>
#include <glog/logging.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/train/zero_gang.h"

namespace lepton::testing {

inline constexpr char kAdam[] =
    "optimizer: {name: adamw, lr: 0.01, decay: matrices}, clip_norm: 0.5";

struct ZeroCase {
  int stage;
  bool striped;  // a model of several stripes, which takes longer
};

class ZeroStages : public ::testing::TestWithParam<ZeroCase> {
 protected:
  void SetUp() override { FLAGS_minloglevel = 2; }
  static int stage() { return GetParam().stage; }
  static bool striped() { return GetParam().striped; }
  static constexpr int kSmall = 230, kStriped = 560;
  static ZeroTraining Training(int stage, const std::string& more) {
    const bool buckets = more.find("gradients") == more.npos;
    return ZeroTraining(fmt::format("parallel: {{zero: {}}}, {}{}", stage, more,
                                    buckets ? ", gradients: {bucket_bytes: 65536}" : ""),
                        5, striped() ? kStriped : kSmall);
  }
  static ZeroTraining Training(const std::string& more = kAdam) { return Training(stage(), more); }
  static std::string Undisturbed(const std::string& more = kAdam, int stage = 0, int ranks = 1) {
    ZeroTraining training = Training(stage, more);
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    training.Group();
    const std::string weights = training.Weights(*training.members[0]);
    training.ExpectAll(weights, "undisturbed");
    return weights;
  }
};

inline constexpr ZeroCase kZeroCases[] = {{1, false}, {2, false}, {2, true}, {3, false}, {3, true}};

inline std::string ZeroCaseName(const ::testing::TestParamInfo<ZeroCase>& info) {
  return fmt::format("Stage{}{}", info.param.stage, info.param.striped ? "InStripes" : "");
}

}  // namespace lepton::testing
