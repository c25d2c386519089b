// Cases of convolutions, pools and batch normalisation.
#include <algorithm>

#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using Ints = std::vector<int64_t>;
using graph::Attributes;

struct Geometry {
  const char* label;
  Shape x, weights, y;
  Ints strides, pads, dilations;
  int64_t groups = 1;
};

// For comparing kernels, not for finite differences.
std::vector<Geometry> ManyChannels(int64_t n) {
  return {
      {"many channels", {n, 48, 9, 9}, {40, 48, 3, 3}, {n, 40, 9, 9}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"strided, many",
       {n, 64, 12, 12},
       {96, 64, 3, 3},
       {n, 96, 6, 6},
       {2, 2},
       {1, 1, 1, 1},
       {1, 1}},
      {"1x1, strided", {n, 32, 8, 10}, {64, 32, 1, 1}, {n, 64, 4, 5}, {2, 2}, {0, 0, 0, 0}, {1, 1}},
      {"first layer", {n, 3, 20, 20}, {16, 3, 7, 7}, {n, 16, 10, 10}, {2, 2}, {3, 3, 3, 3}, {1, 1}},
      {"many groups",
       {n, 32, 8, 8},
       {32, 1, 3, 3},
       {n, 32, 8, 8},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1},
       32},
      // Stride 1 and whole blocks of channels: lines of one, two and three tiles, and of no whole
      // one.
      {"lines of 16", {n, 32, 5, 16}, {64, 32, 3, 3}, {n, 64, 5, 16}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"lines of 32", {n, 64, 4, 32}, {32, 64, 3, 3}, {n, 32, 4, 32}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"lines of 48", {n, 32, 3, 48}, {32, 32, 1, 1}, {n, 32, 3, 48}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
      {"lines of 8", {n, 32, 9, 8}, {64, 32, 3, 3}, {n, 64, 9, 8}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"few channels", {n, 3, 6, 16}, {32, 3, 3, 3}, {n, 32, 6, 16}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"few, 5x5", {n, 5, 7, 19}, {64, 5, 5, 5}, {n, 64, 7, 19}, {1, 1}, {2, 2, 2, 2}, {1, 1}},
      {"dx by phases",
       {n, 32, 17, 15},
       {64, 32, 3, 3},
       {n, 64, 9, 8},
       {2, 2},
       {1, 1, 1, 1},
       {1, 1}},
      {"dx, three", {n, 32, 16, 13}, {32, 32, 2, 5}, {n, 32, 5, 6}, {3, 2}, {0, 1, 0, 2}, {2, 1}},
      {"in strips",
       {1, 32, 8, 1600},
       {32, 32, 3, 1},
       {1, 32, 8, 1600},
       {1, 1},
       {1, 0, 1, 0},
       {1, 1}},
      {"dilated", {n, 32, 8, 17}, {32, 32, 5, 3}, {n, 32, 7, 18}, {1, 1}, {2, 3, 1, 2}, {1, 2}},
      {"small images", {n, 32, 4, 4}, {48, 32, 3, 3}, {n, 48, 4, 4}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      // Several of these are worked on together.
      {"many small images",
       {9, 32, 4, 4},
       {32, 32, 3, 3},
       {9, 32, 4, 4},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1}},
      {"many of stride 2",
       {9, 32, 8, 8},
       {32, 32, 3, 3},
       {9, 32, 4, 4},
       {2, 2},
       {1, 1, 1, 1},
       {1, 1}},
      {"1x1 of stride 2",
       {9, 32, 8, 8},
       {32, 32, 1, 1},
       {9, 32, 4, 4},
       {2, 2},
       {0, 0, 0, 0},
       {1, 1}},
      {"1x1, images of whole steps",
       {n, 32, 8, 24},
       {64, 32, 1, 1},
       {n, 64, 4, 8},
       {2, 3},
       {0, 0, 0, 0},
       {1, 1}},
      {"1x1, wide", {n, 32, 5, 31}, {64, 32, 1, 1}, {n, 64, 3, 16}, {2, 2}, {0, 0, 0, 0}, {1, 1}},
      {"many, no border",
       {9, 32, 6, 10},
       {32, 32, 3, 3},
       {9, 32, 4, 8},
       {1, 1},
       {0, 0, 0, 0},
       {1, 1}},
      {"odd, one border",
       {n, 16, 15, 14},
       {40, 16, 3, 3},
       {n, 40, 14, 13},
       {1, 1},
       {1, 0, 0, 1},
       {1, 1}},
      // Tiles of minimal filtering, 32 at a time, end within lines and images.
      {"lines of 48 tiles",
       {2, 16, 6, 96},
       {16, 16, 3, 3},
       {2, 16, 6, 96},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1}},
      {"lines of 45 tiles",
       {1, 16, 5, 91},
       {16, 16, 3, 3},
       {1, 16, 5, 89},
       {1, 1},
       {1, 0, 1, 0},
       {1, 1}},
      {"48 tiles an image",
       {3, 16, 8, 24},
       {20, 16, 3, 3},
       {3, 20, 8, 24},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1}},
      {"64 channels", {n, 64, 7, 10}, {64, 64, 3, 3}, {n, 64, 7, 10}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"128 channels",
       {n, 128, 6, 8},
       {128, 128, 3, 3},
       {n, 128, 6, 8},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1}},
      {"130 to 144 channels",
       {1, 130, 5, 7},
       {144, 130, 3, 3},
       {1, 144, 5, 7},
       {1, 1},
       {1, 1, 1, 1},
       {1, 1}},
      {"wide border", {n, 32, 4, 16}, {32, 32, 3, 3}, {n, 32, 8, 20}, {1, 1}, {3, 3, 3, 3}, {1, 1}},
  };
}

// With many channels if `big`, and then fewer images, for the references are slow.
std::vector<Geometry> Geometries(int64_t images, bool big) {
  const int64_t n = images;
  std::vector<Geometry> all = {
      {"1x1", {n, 3, 4, 3}, {2, 3, 1, 1}, {n, 2, 4, 3}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
      {"3x3", {n, 2, 5, 4}, {3, 2, 3, 3}, {n, 3, 5, 4}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {"uneven", {n, 2, 6, 7}, {2, 2, 3, 2}, {n, 2, 4, 2}, {2, 3}, {2, 0, 1, 1}, {1, 2}},
      {"last row unused", {n, 1, 5, 4}, {2, 1, 2, 2}, {n, 2, 2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}},
      {"groups", {n, 4, 4, 4}, {6, 2, 3, 3}, {n, 6, 4, 4}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 2},
      {"depthwise", {n, 3, 5, 5}, {3, 1, 3, 3}, {n, 3, 3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, 3},
  };
  if (!big) return all;
  for (Geometry& geometry : ManyChannels(std::min<int64_t>(images, 3))) {
    all.push_back(std::move(geometry));
  }
  return all;
}

void AddConvolutions(std::string_view op, int64_t rows, std::vector<OpCase>& cases) {
  const bool big = rows > 4;
  for (const Geometry& g : Geometries(std::min<int64_t>(rows, 7), big)) {
    const Attributes attributes = {
        {"strides", g.strides}, {"pads", g.pads}, {"dilations", g.dilations}, {"groups", g.groups}};
    HostTensor x = RandomTensor(F32(g.x), 41);
    HostTensor weights = RandomTensor(F32(g.weights), 42, -1, 1);
    HostTensor dy = RandomTensor(F32(g.y), 43);
    if (op == "conv2d" || op == "conv2d_int8") {
      cases.push_back(MakeCase(g.label, attributes, {0, 1}, std::move(x), std::move(weights)));
    } else if (op == "conv2d_input_grad") {
      cases.push_back(
          MakeCase(g.label, attributes, {}, std::move(dy), std::move(weights), std::move(x)));
    } else {
      cases.push_back(
          MakeCase(g.label, attributes, {}, std::move(dy), std::move(x), std::move(weights)));
    }
  }
}

// Values at least 0.06 apart, so that a finite difference does not change which is the largest.
HostTensor Distinct(Shape shape) {
  HostTensor tensor = MakeTensor(F32(std::move(shape)));
  const auto count = static_cast<int64_t>(tensor.floats().size());
  for (int64_t i = 0; i < count; ++i) {
    // 7919 is prime: a permutation of 0 .. count - 1 unless it divides count.
    tensor.floats()[i] = static_cast<float>(i * 7919 % count) * 0.0625f - 1;
  }
  return tensor;
}

void AddPools(std::string_view op, int64_t rows, std::vector<OpCase>& cases) {
  const int64_t n = std::min<int64_t>(rows, 7);
  const bool average = op.starts_with("average");
  for (const bool overlapping : {false, true}) {
    for (const int64_t include_pad : {0, 1}) {
      if (!average && include_pad == 1) continue;
      const Shape shape({n, 2, 6, 5});
      const Shape out = overlapping ? Shape({n, 2, 3, 3}) : Shape({n, 2, 3, 2});
      Attributes attributes = {{"kernel", overlapping ? Ints{3, 3} : Ints{2, 2}},
                               {"strides", Ints{2, 2}},
                               {"pads", overlapping ? Ints{1, 1, 1, 1} : Ints{0, 0, 0, 0}}};
      if (average) {
        attributes = {{"kernel", attributes.Ints("kernel")},
                      {"strides", Ints{2, 2}},
                      {"pads", attributes.Ints("pads")},
                      {"include_pad", include_pad}};
      }
      HostTensor x = Distinct(shape);
      const std::string label = overlapping ? "overlapping" : "apart";
      if (!op.ends_with("_grad")) {
        cases.push_back(MakeCase(label, attributes, {0}, std::move(x)));
      } else if (average) {
        cases.push_back(MakeCase(label, attributes, {}, RandomTensor(F32(out), 44), std::move(x)));
      } else {
        cases.push_back(MakeCase(label, attributes, {}, std::move(x), RandomTensor(F32(out), 44)));
      }
    }
  }
}

void AddBatchNorms(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  n = std::min<int64_t>(n, 40);
  const bool applies = op == "batch_norm_apply";
  for (const int64_t training : {0, 1}) {
    if (applies && training == 1) continue;
    // The last has runs of pixels that are long enough to be read where they lie, and an end.
    for (const Shape& shape : {Shape({rows + 2, n}), Shape({2, n, 3, 2}), Shape({3, n, 19, 17})}) {
      if (shape.elements() > 60'000) continue;
      const auto channels = [&](uint64_t seed, double low) {
        return RandomTensor(F32({n}), seed, low, 2);
      };
      // Finite differences over so many elements are slow, and say little.
      const std::vector<int> differentiable =
          shape.rank() == 4 && shape[2] > 3 ? std::vector<int>{} : std::vector<int>{0, 1, 2};
      if (applies) {
        cases.push_back(MakeCase(shape.ToString(), {}, {}, RandomTensor(F32(shape), 45),
                                 channels(46, -2), channels(47, -2), channels(48, -2),
                                 channels(49, 0.5)));
      } else if (op == "batch_norm") {
        cases.push_back(MakeCase(shape.ToString(), {{"training", training}, {"epsilon", 0.01}},
                                 differentiable, RandomTensor(F32(shape), 45), channels(46, -2),
                                 channels(47, -2), channels(48, -2), channels(49, 0.5)));
      } else {
        cases.push_back(MakeCase(shape.ToString(), {{"training", training}}, {},
                                 RandomTensor(F32(shape), 45), channels(46, -2), channels(47, -2),
                                 channels(48, 0.5), RandomTensor(F32(shape), 49)));
      }
    }
  }
}

}  // namespace

void AddImageCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  if (op.starts_with("conv2d")) {
    AddConvolutions(op, rows, cases);
  } else if (op.find("_pool2d") != op.npos) {
    AddPools(op, rows, cases);
  } else if (op.starts_with("batch_norm")) {
    AddBatchNorms(op, rows, n, cases);
  }
}

}  // namespace lepton::engine_test
