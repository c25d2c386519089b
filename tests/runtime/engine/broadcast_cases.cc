// Cases of the element-wise ops with broadcasting, and of sum_to and broadcast_to.
#include <algorithm>

#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

struct Shapes {
  const char* label;
  Shape a, b;
};

std::vector<Shapes> Pairs(int64_t rows, int64_t n) {
  return {
      {"alike", {rows, n}, {rows, n}},
      {"row", {rows, n}, {n}},
      {"row on the left", {1, n}, {2, rows, n}},
      {"column", {rows, n}, {rows, 1}},
      {"scalar", {rows, n}, {}},
      {"outer product", {rows, 1}, {1, n}},
      {"middle axes", {2, rows, 1, n}, {rows, 3, 1}},
  };
}

}  // namespace

void AddBroadcastCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const bool binary = op == "add" || op == "sub" || op == "mul" || op == "div";
  const bool sum = op == "sum_to";
  if (!binary && !sum && op != "broadcast_to") return;
  rows = std::min<int64_t>(rows, 40);
  for (const Shapes& pair : Pairs(rows, n)) {
    // Away from 0, for div.
    if (binary) {
      cases.push_back(MakeCase(pair.label, {}, {0, 1}, RandomTensor(F32(pair.a), 15),
                               RandomTensor(F32(pair.b), 16, 0.7, 2)));
    }
  }
  if (binary) return;
  const Shape large({2, rows, n});
  for (const Shape& small : {large, Shape({n}), Shape({rows, n}), Shape({1, 1, n}),
                             Shape({2, 1, n}), Shape({rows, 1}), Shape()}) {
    const Shape& from = sum ? large : small;
    const Shape& like = sum ? small : large;
    cases.push_back(MakeCase(small.ToString(), {}, {0}, RandomTensor(F32(from), 17),
                             RandomTensor(F32(like), 18)));
  }
}

}  // namespace lepton::engine_test
