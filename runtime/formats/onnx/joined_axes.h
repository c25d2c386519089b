// Axes of a model that are products of an open extent with others: batch * heads, length * batch.
// An extent has no name for such a product, so the tensor keeps its factors as axes of its own, in
// their order, and Ref::groups says how many of them each axis of the model is. To view axes as
// one, or one as several, moves nothing then. What works beside such an axis works beside its
// factors; what would work along it is refused, since there rows of a batch could meet. Threads:
// any.
#pragma once

#include <optional>
#include <vector>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx {

using Groups = std::vector<int>;

// One number per axis of the model, also where each is one axis of the tensor; none for what is no
// tensor.
Groups GroupsOf(const Builder& b, const Ref& ref);
bool IsJoined(const Groups& groups);
// The tensor's axis where an axis of the model begins; of the model's last axis + 1, the rank.
int FirstOf(const Groups& groups, int axis);
// The axes of the model.
std::vector<Size> SizesOf(const Builder& b, const Ref& ref);

// A tensor of extents `from`, row by row, as one with these axes: what it is to be reshaped to, and
// the groups. None where an axis would have a part of an open extent, or where known extents do not
// fit; all products must be the same.
struct View {
  Ints extents;
  Groups groups;
};
std::optional<View> ViewAs(const Ints& from, const std::vector<Size>& wanted);

// The factors that a new axis of this size gets.
Ints FactorsOf(const Size& size);

// The tensor with as many axes for each axis of the model, counted from the last one, as `groups`
// has: of 1, where the model's axis is 1. Fails for other axes that do not have so many.
Id Spread(Builder& b, const Ref& ref, const Groups& groups);

// Gives the tensors among `refs` the same factors in each axis of the model but the last `own`, so
// that they can be broadcast to each other as tensors. Fails where factors differ. Then no group is
// left in `refs`; the result are those of what they are broadcast to.
Groups Align(Builder& b, std::vector<Ref>& refs, int own = 0);

[[noreturn]] void FailJoined(const Shape& shape);

}  // namespace lepton::onnx
