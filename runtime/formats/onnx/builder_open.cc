// The builder's open extents: shapes with a batch or a sequence whose length is not known yet.
#include <algorithm>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx {
namespace {

Ints OpenOf(const Ints& extents) {
  Ints open;
  std::copy_if(extents.begin(), extents.end(), std::back_inserter(open),
               [](int64_t extent) { return extent < 0; });
  std::sort(open.begin(), open.end());
  return open;
}

int64_t KnownOf(const Ints& extents) {
  Ints known;
  std::copy_if(extents.begin(), extents.end(), std::back_inserter(known),
               [](int64_t extent) { return extent >= 0; });
  return Product(known);
}

}  // namespace

int64_t Builder::ToMark(int64_t extent) {
  return extent == Shape::kBatch ? kBatchMark : extent == Shape::kSequence ? kSequenceMark : extent;
}

int64_t Builder::FromMark(int64_t number) {
  return number == kBatchMark ? Shape::kBatch : number == kSequenceMark ? Shape::kSequence : number;
}

Id Builder::ShapeOf(const std::vector<Size>& sizes) {
  std::vector<Mark> marks;
  Ints numbers;
  for (const Size& size : sizes) {
    Mark mark = size.open.empty() ? Mark::kNumber : size.plain() ? Mark::kLength : Mark::kProduct;
    int64_t number = size.number;
    for (const int64_t extent : size.open) {
      if (__builtin_mul_overflow(number, ToMark(extent), &number)) mark = Mark::kComputed;
    }
    numbers.push_back(number);
    marks.push_back(mark);
  }
  const Id id = Constant(TensorOf(numbers));
  const auto open = [](Mark mark) { return mark != Mark::kNumber; };
  marked_[id] = std::any_of(marks.begin(), marks.end(), open);
  if (marked_[id]) marks_[id] = std::move(marks);
  return id;
}

Id Builder::Positions(int64_t extent) {
  if (extent >= 0) {
    if (extent > options_.limits.value_bytes / 8) FailInvalid("too many elements");
    return Constant(TensorOf(AllAxes(static_cast<int>(extent))));
  }
  const auto found = open_axes_.find(extent);
  if (found == open_axes_.end()) FailUnsupported("an open extent that no input has");
  return Convert(
      Node("index_range", {found->second.value}, {{"axis", int64_t{found->second.axis}}}),
      DType::kI64);
}

int64_t Builder::Merged(const Ints& extents) {
  const Ints open = OpenOf(extents);
  if (open.empty()) return Product(extents);
  if (open.size() > 1 || KnownOf(extents) != 1) {
    FailUnsupported("merging the open extents of " + Shape(extents).ToString());
  }
  return open.front();
}

// The open axes first, and how to bring them back: other axes keep their order, so that a reshape
// of those does not touch the open ones. Fails when the axes between two open ones would not be the
// same elements.
Id Builder::ReshapeAround(Id x, const Ints& extents, const std::string& what) {
  const Ints from = shape(x).extents();
  const auto segments = [](const Ints& list) {
    Ints products = {1};
    for (const int64_t extent : list) {
      if (extent < 0) {
        products.insert(products.end(), {extent, 1});
      } else {
        products.back() = Product({products.back(), extent});
      }
    }
    return products;
  };
  if (segments(from) != segments(extents)) FailUnsupported("moving an open extent: " + what);
  const auto open_first = [](const Ints& list) {
    Ints order;
    for (const bool open : {true, false}) {
      for (size_t i = 0; i < list.size(); ++i) {
        if ((list[i] < 0) == open) order.push_back(static_cast<int64_t>(i));
      }
    }
    return order;
  };
  const Ints order = open_first(extents);
  Ints target, back(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    target.push_back(extents[order[i]]);
    back[order[i]] = static_cast<int64_t>(i);
  }
  Id y = Transpose(x, open_first(from));
  if (target != shape(y).extents()) y = Node("reshape", {y}, {{"shape", target}});
  return Transpose(y, back);
}

Id Builder::OpenReshape(Id x, Ints extents) {
  const Ints from = shape(x).extents();
  const std::string what = type(x).ToString() + " as " + Shape(extents).ToString();
  if (OpenOf(from) != OpenOf(extents)) {
    FailUnsupported("merging or splitting open extents: " + what);
  }
  if (KnownOf(from) != KnownOf(extents) || IsEmpty(shape(x))) FailInvalid("cannot reshape " + what);
  const auto sequence = std::find(extents.begin(), extents.end(), Shape::kSequence);
  const size_t place = sequence - extents.begin();
  const bool stays =
      sequence == extents.end() || (place < from.size() && from[place] == Shape::kSequence);
  const bool once = std::count(extents.begin(), extents.end(), Shape::kSequence) <= 1;
  if (stays && once) return Node("reshape", {x}, {{"shape", extents}});
  // Of a mask [queries, keys]: axes before it.
  const size_t added = extents.size() - std::min(extents.size(), from.size());
  if (Ints(extents.begin() + static_cast<std::ptrdiff_t>(added), extents.end()) == from &&
      std::all_of(extents.begin(), extents.begin() + static_cast<std::ptrdiff_t>(added),
                  [](int64_t extent) { return extent == 1; })) {
    return Expand(x, Shape(std::move(extents)));
  }
  return ReshapeAround(x, extents, what);
}

}  // namespace lepton::onnx
