// Cases of the ops that move elements, and of products per leading index.
#include <algorithm>

#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using Ints = std::vector<int64_t>;

void AddSlices(bool gradient, DType dtype, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const Shape shape({2, rows, n});
  struct Part {
    int64_t axis, begin, end, step;
  };
  for (const Part& part : {Part{0, 1, 2, 1},
                           {1, 0, rows, 1},
                           {1, rows / 2, rows, 2},
                           {2, n / 3, n, 1},
                           {2, 0, n, 3}}) {
    const graph::Attributes attributes = {
        {"axis", part.axis}, {"begin", part.begin}, {"end", part.end}, {"step", part.step}};
    const std::string label = "axis " + std::to_string(part.axis);
    HostTensor x = RandomTensor({dtype, shape}, 31);
    if (!gradient) {
      cases.push_back(MakeCase(label, attributes, {0}, std::move(x)));
      continue;
    }
    Ints extents = shape.extents();
    extents[part.axis] = (part.end - part.begin + part.step - 1) / part.step;
    cases.push_back(
        MakeCase(label, attributes, {}, RandomTensor(F32(Shape(extents)), 32), std::move(x)));
  }
}

void AddGathers(bool gradient, DType dtype, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const Shape shape({2, rows, n});
  for (int64_t axis = 0; axis < 3; ++axis) {
    const int64_t extent = shape[static_cast<int>(axis)];
    // Repeated indices, and negative ones.
    HostTensor indices = RandomTensor({DType::kI32, {3, 2}}, 33 + axis,
                                      -static_cast<double>(extent), static_cast<double>(extent));
    const graph::Attributes attributes = {{"axis", axis}};
    const std::string label = "axis " + std::to_string(axis);
    HostTensor x = RandomTensor({dtype, shape}, 31);
    if (!gradient) {
      cases.push_back(MakeCase(label, attributes, {0}, std::move(x), std::move(indices)));
      continue;
    }
    Ints extents = shape.extents();
    extents[axis] = 3;
    extents.insert(extents.begin() + axis + 1, 2);
    cases.push_back(MakeCase(label, attributes, {}, RandomTensor(F32(Shape(extents)), 32),
                             std::move(indices), std::move(x)));
  }
}

void AddBatchMatmuls(DType dtype, int64_t m, int64_t n, std::vector<OpCase>& cases) {
  const int64_t k = std::min<int64_t>(m + n / 4 + 1, 70);
  const int64_t heads = m < 5 ? 1 : 3;
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const Shape a = ta ? Shape({2, heads, k, m}) : Shape({2, heads, m, k});
      const Shape b = tb ? Shape({2, heads, n, k}) : Shape({2, heads, k, n});
      cases.push_back(MakeCase(std::string("transposes ") + (ta ? "a" : "-") + (tb ? "b" : "-"),
                               {{"transpose_a", int64_t{ta}}, {"transpose_b", int64_t{tb}}}, {0, 1},
                               RandomTensor({dtype, a}, 1), RandomTensor({dtype, b}, 2)));
    }
  }
}

void AddRopeAngles(int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t dims = std::max<int64_t>(2, std::min<int64_t>(n, 64) / 2 * 2);
  for (const graph::Attributes& scaling :
       {graph::Attributes{{"dims", dims}},
        graph::Attributes{{"dims", dims}, {"scaling", "linear"}, {"factor", 4.0}, {"base", 500.0}},
        graph::Attributes{
            {"dims", dims}, {"scaling", "yarn"}, {"factor", 4.0}, {"magnitude", 1.25}}}) {
    cases.push_back(
        MakeCase(scaling.Text("scaling"), scaling, {},
                 RandomTensor({DType::kI32, {2, std::min<int64_t>(rows, 40)}}, 95, 0, 3000)));
  }
}

}  // namespace

void AddShapeCases(std::string_view op, DType dtype, int64_t rows, int64_t n,
                   std::vector<OpCase>& cases) {
  rows = std::min<int64_t>(rows, 50);
  const TensorType type{dtype, {2, rows, n}};
  if (op == "reshape") {
    for (const Shape& shape : {Shape({2 * rows, -1}), Shape({n, rows, 2}), Shape({-1})}) {
      cases.push_back(
          MakeCase(shape.ToString(), {{"shape", shape.extents()}}, {0}, RandomTensor(type, 30)));
    }
  } else if (op == "transpose") {
    for (const Ints& perm : {Ints{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0}}) {
      cases.push_back(
          MakeCase(Shape(perm).ToString(), {{"perm", perm}}, {0}, RandomTensor(type, 30)));
    }
  } else if (op == "concat") {
    for (int64_t axis = 0; axis < 3; ++axis) {
      Ints extents = type.shape.extents();
      extents[axis] = 3;
      cases.push_back(MakeCase("axis " + std::to_string(axis), {{"axis", axis}}, {0, 1, 2},
                               RandomTensor(type, 30), RandomTensor({dtype, Shape(extents)}, 31),
                               RandomTensor(type, 32)));
    }
  } else if (op == "rope_angles" && dtype == DType::kI32) {
    AddRopeAngles(rows, n, cases);
  } else if (op == "positions" && dtype == DType::kI32) {
    for (const int64_t offset : {0, 3}) {
      cases.push_back(MakeCase("", {{"offset", offset}, {"limit", rows + offset}}, {},
                               RandomTensor({dtype, {2, rows}}, 30)));
    }
  } else if (op == "slice" || (op == "slice_grad" && dtype == DType::kF32)) {
    AddSlices(op == "slice_grad", dtype, rows, n, cases);
  } else if (op == "gather" || (op == "gather_grad" && dtype == DType::kF32)) {
    AddGathers(op == "gather_grad", dtype, rows, n, cases);
  } else if (op == "batch_matmul") {
    AddBatchMatmuls(dtype, rows, std::min<int64_t>(n, 300), cases);
  }
}

}  // namespace lepton::engine_test
