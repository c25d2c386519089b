// What is taken out of a model's file before it is stored, and what is left in it.
#include "runtime/formats/onnx/model_file.h"

#include <gtest/gtest.h>

#include "tests/runtime/onnx/test_model.h"

namespace lepton::onnx {
namespace {

// (x - mean) / scale for constants of this shape, and then a Relu.
TakenApart Normalised(const std::vector<int64_t>& input, const std::vector<int64_t>& extents) {
  int64_t count = 1;
  for (const int64_t extent : extents) count *= extent;
  TestModel m;
  m.Input("x", kFloatCode, input).Output("y");
  m.Floats("mean", extents, std::vector<float>(count, 0.5f));
  m.Floats("scale", extents, std::vector<float>(count, 2));
  m.Node("Sub", {"x", "mean"}, "centred").Node("Div", {"centred", "scale"}, "n");
  m.Node("Relu", {"n"}, "y");
  auto apart = TakeApart(m.proto.SerializeAsString(), {});
  EXPECT_TRUE(apart.ok()) << apart.status().ToString();
  return *std::move(apart);
}

TEST(OnnxModelFile, ANormalisationOfTheDataIsTakenOut) {
  for (const auto& [input, extents] :
       std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
           {{-1, 3}, {3}},
           {{-1, 3}, {1, 3}},
           {{-1, 3, 8, 8}, {1, 3, 1, 1}},
           {{-1, 3, 8, 8}, {3, 1, 1}},
           {{-1, 1}, {1}}}) {
    const TakenApart apart = Normalised(input, extents);
    ASSERT_TRUE(apart.normalize.has_value()) << Shape(extents).ToString();
    EXPECT_EQ(apart.normalize->mean, std::vector<float>(input[1], 0.5f));
    EXPECT_EQ(apart.normalize->scale, std::vector<float>(input[1], 2));
  }
}

// Back where it was: along the axis of features, whichever that is.
TEST(OnnxModelFile, ANormalisationGoesBackAlongTheFeatures) {
  for (const auto& [input, extents] :
       std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
           {{-1, 3}, {3}}, {{3, -1}, {3, 1}}, {{-1, 3, 8, 8}, {1, 3, 1, 1}}}) {
    const TakenApart apart = Normalised(input, extents);
    ASSERT_TRUE(apart.normalize.has_value()) << Shape(input).ToString();
    PutTogetherOptions options;
    options.normalize.emplace();
    options.normalize->mean = apart.normalize->mean;
    options.normalize->scale = apart.normalize->scale;
    const auto whole = PutTogether(apart.graph, {}, options);
    ASSERT_TRUE(whole.ok()) << whole.status().ToString();
    onnx_proto::ModelProto proto;
    ASSERT_TRUE(ParseModel(whole->model, &proto).ok());
    int found = 0;
    for (const auto& tensor : proto.graph().initializer()) {
      if (!tensor.name().ends_with(".mean")) continue;
      ++found;
      const std::vector<int64_t> dims(tensor.dims().begin(), tensor.dims().end());
      EXPECT_EQ(dims, extents);
    }
    EXPECT_EQ(found, 1);
  }
}

// Part of the model: not one number per feature or channel.
TEST(OnnxModelFile, OtherDifferencesAndQuotientsStayInTheModel) {
  for (const auto& [input, extents] :
       std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
           {{-1, 3}, {}},
           {{-1, 3}, {1}},
           {{-1, 3, 8, 8}, {1}},
           {{-1, 3, 8, 8}, {1, 1, 8, 8}},
           {{-1, 3, 8, 3}, {3}},
           {{-1, 4, 3}, {3}},
           {{-1, 4, 3}, {4, 1}},
           {{-1, -1}, {3}}}) {
    const TakenApart apart = Normalised(input, extents);
    EXPECT_FALSE(apart.normalize.has_value()) << Shape(extents).ToString();
    onnx_proto::ModelProto proto;
    ASSERT_TRUE(ParseModel(apart.graph, &proto).ok());
    EXPECT_EQ(proto.graph().node_size(), 3);
  }
}

}  // namespace
}  // namespace lepton::onnx
