#include "runtime/ops/general/shape_rules.h"

#include <algorithm>

namespace lepton::ops::general {

Result<Shape> BroadcastShape(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  std::vector<int64_t> extents(rank);
  for (int axis = 0; axis < rank; ++axis) {
    const int in_a = axis - (rank - a.rank());
    const int in_b = axis - (rank - b.rank());
    const int64_t x = in_a < 0 ? 1 : a[in_a];
    const int64_t y = in_b < 0 ? 1 : b[in_b];
    if (x != y && x != 1 && y != 1) {
      return InvalidArgument("shapes " + a.ToString() + " and " + b.ToString() +
                             " do not broadcast");
    }
    extents[axis] = x == 1 ? y : x;
  }
  return Shape(std::move(extents));
}

Result<int> ResolveAxis(int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) {
    return InvalidArgument("axis " + std::to_string(axis) + " is outside a tensor of rank " +
                           std::to_string(rank));
  }
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

}  // namespace lepton::ops::general
