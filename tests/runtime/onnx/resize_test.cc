// Resize of integers and of boxes, against values from its definition.
#include "tests/runtime/onnx/one_node.h"

namespace lepton::onnx {
namespace {

Result<std::vector<float>> Resized(DType type, const std::string& mode, const std::vector<float>& x,
                                   const std::string& how, float scale) {
  OneNode node("Resize", 19, {1, 1, 1, static_cast<int64_t>(x.size())});
  node.Of(type).Set("mode", mode).Set("coordinate_transformation_mode", how);
  return node.Nothing().Floats({1, 1, 1, scale}).Run(x);
}

// Interpolated as numbers, then cut to integers towards zero.
TEST(OnnxResize, IntegersAreInterpolatedAsNumbers) {
  const std::vector<float> x = {10, 20, 35, 100};
  const std::vector<double> wanted = {10, 15, 20, 27, 35, 67, 100, 100};
  for (const DType type : {DType::kU8, DType::kI8, DType::kI32}) {
    ExpectValues(Resized(type, "linear", x, "asymmetric", 2), wanted);
    // Equal numbers stay what they are, whatever the weights.
    ExpectValues(Resized(type, "linear", {100, 100, 100}, "half_pixel", 2.3f),
                 {100, 100, 100, 100, 100, 100});
    ExpectValues(Resized(type, "nearest", {1, 2, 3}, "asymmetric", 2), {1, 1, 2, 2, 3, 3});
  }
  ExpectValues(Resized(DType::kI8, "linear", {-10, -20, -35}, "asymmetric", 2),
               {-10, -15, -20, -27, -35, -35});
  // At a half the weights of a cubic are -0.09375, 0.59375, 0.59375, -0.09375.
  ExpectValues(Resized(DType::kI32, "cubic", {10, 20, 35, 100}, "asymmetric", 2),
               {10, 13, 20, 22, 35, 68, 100, 106});
  // What goes past a type's end stays at it.
  ExpectValues(Resized(DType::kU8, "cubic", {0, 0, 255, 255}, "asymmetric", 2),
               {0, 0, 0, 127, 255, 255, 255, 255});
}

// The box takes part in the size that scales give: floor(extent * (end - start) * scale).
TEST(OnnxResize, BoxesAreResizedByTheirOwnExtent) {
  OneNode node("Resize", 19, {1, 1, 1, 9});
  node.Set("mode", "linear").Set("coordinate_transformation_mode", "tf_crop_and_resize");
  node.Floats({0, 0, 0, 0.25f, 1, 1, 1, 0.75f}).Floats({1, 1, 1, 1.2f});
  // floor(9 * 0.5 * 1.2) = 5 places from 2 to 6.
  ExpectValues(node.Run({0, 1, 4, 9, 16, 25, 36, 49, 64}), {4, 9, 16, 25, 36});
}

}  // namespace
}  // namespace lepton::onnx
