// What a backward pass makes again instead of keeping it: no bit changes, and less memory is
// needed.
#include "runtime/graph/recomputation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::graph {
namespace {

using engine_test::F32;
using engine_test::HostTensor;
using engine_test::RandomTensor;
using testing::Contains;
using testing::HasSubstr;

constexpr int64_t kB = Shape::kBatch, kChannels = 16;

struct ResidualCase {
  int64_t height, width;
  bool bf16;
};
std::ostream& operator<<(std::ostream& out, const ResidualCase& c) {
  return out << c.height << "x" << c.width << (c.bf16 ? " bf16" : " f32");
}

// A stem and residual blocks of two normalised convolutions each.
class ResidualNet {
 public:
  ResidualNet(const ResidualCase& c, int blocks, const GradientOptions& options)
      : graph_(ops::OpList()), bf16_(c.bf16) {
    x_ = graph_.AddInput("x", F32({kB, kChannels, c.height, c.width}));
    ValueId x = Activate(Normalize(Convolve(x_)));
    for (int block = 0; block < blocks; ++block) {
      const ValueId inner = Activate(Normalize(Convolve(x)));
      const ValueId outer = Normalize(Convolve(inner));
      x = Activate(graph_.Add("add", {outer, x}).value());
    }
    if (bf16_) x = graph_.Add("cast", {x}, {{"to", "f32"}}).value();
    gradients_ = AddGradients(graph_, graph_.Add("mul", {x, x}).value(), weights_, options).value();
    for (const ValueId gradient : gradients_) {
      EXPECT_TRUE(graph_.AddOutput(gradient, false).ok());
    }
  }

  // The gradients' bytes.
  std::string Run(int64_t batch, bool fuse) {
    Executor executor(graph_, kernels::CpuKernels(), {}, {.fuse = fuse});
    Plan* plan = executor.PlanForBatch(batch).value();
    names = plan->KernelNames();
    arena = plan->memory().peak_bytes;
    HostTensor input = RandomTensor({DType::kF32, graph_.type(x_).shape.WithBatch(batch)}, 3);
    plan->Bind(x_, input.data.data());
    for (size_t i = 0; i < weights_.size(); ++i) plan->Bind(weights_[i], data_[i].data.data());
    plan->RunPrologue({7, 8, 9});
    plan->Run({7, 8, 9});
    std::string bytes;
    for (const ValueId gradient : gradients_) {
      const TensorView& view = plan->view(gradient);
      bytes.append(view.as<char>(), view.type.bytes());
    }
    return bytes;
  }
  // Steps of the last run.
  int64_t Count(std::string_view op) const {
    return std::count_if(names.begin(), names.end(), [&](const std::string& name) {
      return name.substr(0, name.find_first_of("+:")) == op;
    });
  }

  std::vector<std::string> names;
  size_t arena = 0;

 private:
  ValueId Weight(Shape shape, double low) {
    weights_.push_back(
        graph_.AddParameter("w" + std::to_string(weights_.size()), F32(std::move(shape))));
    data_.push_back(RandomTensor(graph_.type(weights_.back()), 30 + weights_.size(), low, 0.5));
    return weights_.back();
  }
  ValueId Narrow(ValueId value) {
    if (!bf16_ || graph_.type(value).dtype == DType::kBF16) return value;
    return graph_.Add("cast", {value}, {{"to", "bf16"}}).value();
  }
  ValueId Convolve(ValueId x) {
    const ValueId weights = Weight({kChannels, kChannels, 3, 3}, -0.5);
    return Narrow(graph_
                      .Add("conv2d", {Narrow(x), Narrow(weights)},
                           {{"strides", std::vector<int64_t>{1, 1}},
                            {"pads", std::vector<int64_t>{1, 1, 1, 1}}})
                      .value());
  }
  ValueId Normalize(ValueId x) {
    const ValueId gain = Weight({kChannels}, 0.1), bias = Weight({kChannels}, -0.5);
    if (mean_ == kNoValue) {
      mean_ = graph_.Add("fill", {gain}, {{"value", 0.0}}).value();
      variance_ = graph_.Add("fill", {gain}, {{"value", 1.0}}).value();
    }
    return graph_.Add("batch_norm", {x, gain, bias, mean_, variance_}, {{"training", int64_t{1}}})
        .value();
  }
  ValueId Activate(ValueId x) { return graph_.Add("relu", {x}).value(); }

  Graph graph_;
  const bool bf16_;
  ValueId x_ = kNoValue, mean_ = kNoValue, variance_ = kNoValue;
  std::vector<ValueId> weights_, gradients_;
  std::vector<HostTensor> data_;
};

class CheapRecomputationOf : public testing::TestWithParam<ResidualCase> {};

TEST_P(CheapRecomputationOf, ChangesNoBitAndNeedsLessMemory) {
  constexpr int kBlocks = 4;
  for (const int64_t batch : {1, 5}) {
    ResidualNet keeping(GetParam(), kBlocks, {});
    const std::string wanted = keeping.Run(batch, /*fuse=*/false);
    const size_t kept = keeping.arena;
    EXPECT_EQ(keeping.Run(batch, /*fuse=*/true), wanted);
    ResidualNet again(GetParam(), kBlocks, {.recompute_cheap = true});
    EXPECT_EQ(again.Run(batch, /*fuse=*/false), wanted);
    EXPECT_EQ(again.Run(batch, /*fuse=*/true), wanted);
    // Of small images most is memory that kernels need.
    const size_t value = static_cast<size_t>(batch * kChannels * GetParam().height *
                                             GetParam().width * (GetParam().bf16 ? 2 : 4));
    if (value > 50'000) {
      EXPECT_LE(again.arena + 5 * value, kept);
    }
  }
}

// Made again: each block's inner result, the stem's (of 2 nodes), the first block's from that (5).
// The second's would take 7 nodes and is kept; from it come the third's (3) and the fourth's (6).
TEST_P(CheapRecomputationOf, KeepsWhereAChainWouldBeTooLong) {
  ResidualNet again(GetParam(), 4, {.recompute_cheap = true});
  again.Run(2, /*fuse=*/true);
  EXPECT_EQ(again.Count("batch_norm"), 9);
  EXPECT_EQ(again.Count("batch_norm_apply"), 4 + 1 + 3);
  ResidualNet keeping(GetParam(), 4, {});
  keeping.Run(2, /*fuse=*/true);
  EXPECT_EQ(keeping.Count("batch_norm_apply"), 0);
}

TEST_P(CheapRecomputationOf, WhatFollowsANormalisationRunsInItsStep) {
  ResidualNet again(GetParam(), 2, {.recompute_cheap = true});
  again.Run(5, /*fuse=*/true);
  EXPECT_THAT(again.names, Contains(HasSubstr("batch_norm+relu: threaded")));
  EXPECT_THAT(again.names, Contains(HasSubstr("batch_norm+add+relu: threaded")));
  EXPECT_THAT(again.names, Contains(HasSubstr("batch_norm_apply+relu: threaded")));
}

INSTANTIATE_TEST_SUITE_P(Images, CheapRecomputationOf,
                         testing::Values(ResidualCase{16, 16, false}, ResidualCase{5, 3, false},
                                         ResidualCase{33, 40, false}, ResidualCase{4, 4, true},
                                         ResidualCase{18, 16, true}),
                         [](const testing::TestParamInfo<ResidualCase>& info) {
                           return std::to_string(info.param.height) + "x" +
                                  std::to_string(info.param.width) +
                                  (info.param.bf16 ? "_bf16" : "_f32");
                         });

// Pre-normalised blocks of a transformer without their attention.
struct NormedNet {
  NormedNet(const char* norm, bool bf16, bool recompute) : graph(ops::OpList()) {
    x = graph.AddInput("x", F32({kB, kWidth}));
    const auto narrow = [&](ValueId value) {
      return bf16 ? graph.Add("cast", {value}, {{"to", "bf16"}}).value() : value;
    };
    ValueId stream = x;
    std::vector<ValueId> wanted;
    for (int block = 0; block < kBlocks; ++block) {
      const auto weight = [&](const char* name, Shape shape) {
        weights.push_back(graph.AddParameter(name + std::to_string(block), F32(std::move(shape))));
        return weights.back();
      };
      std::vector<ValueId> normed = {stream, weight("gain", {kWidth})};
      if (norm == std::string_view("layer_norm")) normed.push_back(weight("bias", {kWidth}));
      const ValueId y = graph.AddNode(norm, normed, {{"epsilon", 1e-5}}).value()[0];
      const ValueId product =
          graph.Add("matmul", {narrow(y), narrow(weight("w", {kWidth, kWidth}))}).value();
      stream = graph.Add("add", {stream, product}).value();
    }
    gradients = AddGradients(graph, graph.Add("mul", {stream, stream}).value(), weights,
                             {.recompute_cheap = recompute})
                    .value();
    for (const ValueId gradient : gradients) {
      EXPECT_TRUE(graph.AddOutput(gradient, false).ok());
    }
  }
  std::string Run(int64_t batch, size_t* arena, int64_t* norms) {
    Executor executor(graph, kernels::CpuKernels());
    Plan* plan = executor.PlanForBatch(batch).value();
    HostTensor input = RandomTensor({DType::kF32, Shape({batch, kWidth})}, 3);
    plan->Bind(x, input.data.data());
    std::vector<HostTensor> data;
    for (const ValueId weight : weights) {
      data.push_back(RandomTensor(graph.type(weight), 30 + data.size(), -0.5, 0.5));
    }
    for (size_t i = 0; i < weights.size(); ++i) plan->Bind(weights[i], data[i].data.data());
    plan->RunPrologue({7, 8, 9});
    plan->Run({7, 8, 9});
    *arena = plan->memory().peak_bytes;
    const std::vector<std::string> names = plan->KernelNames();
    *norms = std::count_if(names.begin(), names.end(), [](const std::string& name) {
      return name.find("_norm") != name.npos && name.find("_grad") == name.npos;
    });
    std::string bytes;
    for (const ValueId gradient : gradients) {
      const TensorView& view = plan->view(gradient);
      bytes.append(view.as<char>(), view.type.bytes());
    }
    return bytes;
  }
  static constexpr int64_t kWidth = 48;
  static constexpr int kBlocks = 6;
  Graph graph;
  ValueId x = kNoValue;
  std::vector<ValueId> weights, gradients;
};

TEST(CheapRecomputation, NormalisedRowsAreMadeAgainWhereTheirProductsNeedThem) {
  for (const char* norm : {"layer_norm", "rms_norm"}) {
    for (const bool bf16 : {false, true}) {
      constexpr int64_t kRows = 500;
      size_t kept = 0, less = 0;
      int64_t once = 0, twice = 0;
      NormedNet keeping(norm, bf16, false), again(norm, bf16, true);
      EXPECT_EQ(keeping.Run(kRows, &kept, &once), again.Run(kRows, &less, &twice)) << norm << bf16;
      EXPECT_EQ(once, NormedNet::kBlocks) << norm << bf16;
      EXPECT_EQ(twice, 2 * NormedNet::kBlocks) << norm << bf16;
      const size_t value = kRows * NormedNet::kWidth * (bf16 ? 2 : 4);
      EXPECT_LE(less + (NormedNet::kBlocks - 2) * value, kept) << norm << bf16;
    }
  }
}

}  // namespace
}  // namespace lepton::graph
