// What operator sets 18 to 21 changed or added, against values from their definitions.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/runtime/onnx/one_node.h"

namespace lepton::onnx {
namespace {

std::vector<float> Numbers(int count) {
  std::vector<float> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(std::sin(1.0f + 0.7f * static_cast<float>(i)));
  return numbers;
}

TEST(OnnxNewerOperators, Gelu) {
  const std::vector<float> x = {-3, -1, -0.25, 0, 0.5, 2};
  std::vector<double> exact, by_tanh;
  for (const double a : x) {
    exact.push_back(0.5 * a * (1 + std::erf(a / std::sqrt(2))));
    by_tanh.push_back(
        0.5 * a * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (a + 0.044715 * a * a * a))));
  }
  ExpectValues(OneNode("Gelu", 20, {6}).Run(x), exact);
  ExpectValues(OneNode("Gelu", 20, {6}).Set("approximate", "tanh").Run(x), by_tanh);
  const auto refused = OneNode("Gelu", 20, {6}).Set("approximate", "erf").Run(x);
  EXPECT_NE(refused.status().message().find("none or tanh"), std::string::npos);
}

// [2, 4, 3] in 2 groups; `of` says which scale and bias a channel has.
std::vector<double> GroupNormOf(const std::vector<float>& x, const std::vector<float>& scale,
                                const std::vector<float>& bias, int channels_of_one) {
  std::vector<double> y(x.size());
  for (int part = 0; part < 4; ++part) {  // an image's group: 6 numbers side by side
    double mean = 0, variance = 0;
    for (int i = 0; i < 6; ++i) mean += x[part * 6 + i] / 6.0;
    for (int i = 0; i < 6; ++i) variance += std::pow(x[part * 6 + i] - mean, 2) / 6;
    for (int i = 0; i < 6; ++i) {
      const int channel = part % 2 * 2 + i / 3, at = channel / channels_of_one;
      y[part * 6 + i] =
          (x[part * 6 + i] - mean) / std::sqrt(variance + 1e-5) * scale[at] + bias[at];
    }
  }
  return y;
}

TEST(OnnxNewerOperators, GroupNormalizationScalesGroupsThenChannels) {
  const std::vector<float> x = Numbers(24), two = {2, 3}, minus = {-1, 1};
  const std::vector<float> four = {1, 2, 3, 4}, low = {0, -1, 0.5, 1};
  ExpectValues(OneNode("GroupNormalization", 18, {2, 4, 3})
                   .Set("num_groups", 2)
                   .Floats(two)
                   .Floats(minus)
                   .Run(x),
               GroupNormOf(x, two, minus, 2));
  ExpectValues(OneNode("GroupNormalization", 21, {2, 4, 3})
                   .Set("num_groups", 2)
                   .Floats(four)
                   .Floats(low)
                   .Run(x),
               GroupNormOf(x, four, low, 1));
  const auto refused = OneNode("GroupNormalization", 21, {2, 4, 3})
                           .Set("num_groups", 3)
                           .Floats(two)
                           .Floats(two)
                           .Run(x);
  EXPECT_NE(refused.status().message().find("num_groups"), std::string::npos);
}

TEST(OnnxNewerOperators, DftTakesItsAxisAsAnInput) {
  const std::vector<float> x = Numbers(6);  // [1, 2, 3, 1]
  std::vector<double> wanted;
  for (int row = 0; row < 2; ++row) {
    for (int k = 0; k < 3; ++k) {
      double re = 0, im = 0;
      for (int i = 0; i < 3; ++i) {
        re += x[row * 3 + i] * std::cos(2 * std::numbers::pi * i * k / 3);
        im -= x[row * 3 + i] * std::sin(2 * std::numbers::pi * i * k / 3);
      }
      wanted.push_back(re);
      wanted.push_back(im);
    }
  }
  ExpectValues(OneNode("DFT", 20, {1, 2, 3, 1}).Nothing().Integer(2).Run(x), wanted);
  ExpectValues(OneNode("DFT", 20, {1, 2, 3, 1}).Run(x), wanted);  // the last but one
  ExpectValues(OneNode("DFT", 17, {1, 2, 3, 1}).Set("axis", 2).Run(x), wanted);
}

// 5 to 2 pixels at a scale of 0.5: the half pixel that was cut off is shared by both ends.
TEST(OnnxNewerOperators, ResizeAboutTheMiddle) {
  const std::vector<float> x = {1, 2, 3, 4, 5};
  const auto resized = [&](const std::string& how) {
    OneNode node("Resize", 19, {1, 1, 1, 5});
    node.Set("mode", "linear").Set("coordinate_transformation_mode", how);
    return node.Nothing().Floats({1, 1, 1, 0.5f}).Run(x);
  };
  ExpectValues(resized("half_pixel"), {1.5, 3.5});
  ExpectValues(resized("half_pixel_symmetric"), {2, 4});
}

TEST(OnnxNewerOperators, GridSampleHasNewNamesForItsModes) {
  const std::vector<float> x = {1, 2, 3, 4};  // [1, 1, 2, 2]
  const auto sampled = [&](int64_t version, const std::string& mode) {
    OneNode node("GridSample", version, {1, 1, 2, 2});
    auto* grid = node.Constant(kFloat, {1, 1, 1, 2});
    grid->add_float_data(0);
    grid->add_float_data(0);
    return node.Set("mode", mode).Run(x);
  };
  ExpectValues(sampled(16, "bilinear"), {2.5});
  ExpectValues(sampled(20, "linear"), {2.5});
  EXPECT_FALSE(sampled(16, "linear").ok());
}

TEST(OnnxNewerOperators, ScalesByBlockAndNewerSetsAreRefusedByName) {
  const auto blocks =
      OneNode("QuantizeLinear", 21, {4}).Floats({1}).Set("block_size", 2).Run({1, 2, 3, 4});
  EXPECT_NE(blocks.status().message().find("block_size"), std::string::npos);
  const auto newer = OneNode("Relu", 22, {4}).Run({1, 2, 3, 4});
  EXPECT_NE(newer.status().message().find("operator set 22"), std::string::npos);
}

}  // namespace
}  // namespace lepton::onnx
