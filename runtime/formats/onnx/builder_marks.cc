// What a model computes from open extents: which elements of its small constants are lengths, and
// which follow from one.
#include <algorithm>

#include "runtime/formats/onnx/builder.h"

namespace lepton::onnx {
namespace {

using Marks = std::vector<Builder::Mark>;
using enum Builder::Mark;

// An element and how it came about. What follows from a mark is an integer.
struct Element {
  Builder::Mark mark;
  int64_t number;
};

Size SizeOf(const Element& element) {
  Size size{element.number};
  for (const int64_t extent : {Shape::kBatch, Shape::kSequence}) {
    const int64_t mark = Builder::ToMark(extent);
    while (element.mark != kNumber && size.number % mark == 0) {
      size.open.push_back(extent);
      size.number /= mark;
    }
  }
  std::sort(size.open.begin(), size.open.end());
  return size;
}

// The mark of a product that has no other factors; kComputed where its own number would not fit, or
// could have a mark as a factor by itself.
Builder::Mark MarkOf(const Size& size) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (size.number < 1 || size.number > kMost) return kComputed;
  int64_t product = size.number;
  for (const int64_t extent : size.open) {
    if (__builtin_mul_overflow(product, Builder::ToMark(extent), &product)) return kComputed;
  }
  return size.open.empty() ? kNumber : size.plain() ? kLength : kProduct;
}

Builder::Mark OfProduct(const Element& a, const Element& b) {
  Size size = SizeOf(a);
  const Size other = SizeOf(b);
  if (__builtin_mul_overflow(size.number, other.number, &size.number)) return kComputed;
  size.open.insert(size.open.end(), other.open.begin(), other.open.end());
  return MarkOf(size);
}

// Where nothing is left over.
Builder::Mark OfQuotient(const Element& a, const Element& b) {
  Size size = SizeOf(a);
  const Size other = SizeOf(b);
  if (other.number < 1 || size.number % other.number != 0) return kComputed;
  size.number /= other.number;
  for (const int64_t extent : other.open) {
    const auto found = std::find(size.open.begin(), size.open.end(), extent);
    if (found == size.open.end()) return kComputed;
    size.open.erase(found);
  }
  return MarkOf(size);
}

// Lengths are at least 1, and so are their products; nothing else is known of them.
Builder::Mark OfPair(std::string_view function, const Element& a, const Element& b) {
  if (a.mark == kNumber && b.mark == kNumber) return kNumber;
  if (a.mark == kComputed || b.mark == kComputed) return kComputed;
  if (function == "mul") return OfProduct(a, b);
  if (function == "div") return OfQuotient(a, b);
  const bool compares =
      IsOneOf(function, {"equal", "less", "less_equal", "greater", "greater_equal"});
  if (a.mark != kNumber && b.mark != kNumber) {
    if (a.number != b.number) return kComputed;
    if (compares || function == "sub") return kNumber;
    return IsOneOf(function, {"max", "min"}) ? a.mark : kComputed;
  }
  const Element& length = a.mark != kNumber ? a : b;
  const int64_t number = a.mark != kNumber ? b.number : a.number;
  if (compares) return number < 1 ? kNumber : kComputed;
  const bool stays = function == "add"   ? number == 0
                     : function == "max" ? number <= 1
                     : function == "sub" ? a.mark != kNumber && number == 0
                                         : false;
  return stays ? length.mark : kComputed;
}

// Where the elements of an input lie in what it is broadcast to.
Ints Places(const Shape& from, const Shape& to) {
  Ints places(to.elements());
  for (int64_t i = 0; i < to.elements(); ++i) {
    int64_t rest = i, stride = 1, at = 0;
    for (int axis = to.rank() - 1; axis >= 0; --axis) {
      const int own = axis - (to.rank() - from.rank());
      const int64_t index = rest % to[axis];
      rest /= to[axis];
      if (own < 0) continue;
      if (from[own] != 1) at += index * stride;
      stride *= from[own];
    }
    places[i] = at;
  }
  return places;
}

// The inputs that an op moves elements of, if it does no more than that.
Ints MovedInputs(const graph::Node& node) {
  const std::string_view op = node.op->name();
  if (IsOneOf(op, {"gather", "take", "gather_elements", "gather_nd", "slice", "strided", "reshape",
                   "transpose", "repeat"})) {
    return {0};
  }
  if (op == "pad_constant") return {0, 1};
  const bool scatters = IsOneOf(op, {"scatter_elements", "scatter_nd"});
  if (scatters && node.attributes.Text("reduction", "none") == "none") return {0, 2};
  if (op == "concat" || op == "join") return AllAxes(static_cast<int>(node.inputs.size()));
  return {};
}

}  // namespace

bool Builder::HasMarks(Id id) const {
  return static_cast<size_t>(id) < marked_.size() && marked_[id];
}

bool Builder::HasLengthsOnly(Id id) const {
  if (!HasMarks(id)) return true;
  const auto found = marks_.find(id);
  if (found == marks_.end()) return false;
  return std::all_of(found->second.begin(), found->second.end(),
                     [](Mark mark) { return mark == kNumber || mark == kLength; });
}

std::vector<Size> Builder::Sizes(Id id, std::string_view what) {
  const Ints numbers = AsIntegers(Evaluate(id, what));
  const Marks marks = MarksOf(id);
  if (std::find(marks.begin(), marks.end(), kComputed) != marks.end()) {
    FailUnsupported(std::string(what) +
                    " is computed from an open extent, or is too large a multiple of several");
  }
  std::vector<Size> sizes;
  for (size_t i = 0; i < marks.size(); ++i) sizes.push_back(SizeOf({marks[i], numbers[i]}));
  return sizes;
}

Marks Builder::MarksOf(Id id) const {
  if (!HasMarks(id)) return Marks(shape(id).elements(), kNumber);
  const auto found = marks_.find(id);
  return found == marks_.end() ? Marks(shape(id).elements(), kComputed) : found->second;
}

void Builder::CheckNoMarks(Id id) {
  if (HasMarks(id)) {
    FailUnsupported("a result that is computed from the size of the batch or the sequence");
  }
}

void Builder::Track(const std::vector<Id>& inputs, const std::vector<Id>& outputs) {
  constant_.resize(graph_.values().size());
  marked_.resize(graph_.values().size());
  const bool constant =
      std::all_of(inputs.begin(), inputs.end(), [&](Id input) { return constant_[input]; });
  const bool marked =
      std::any_of(inputs.begin(), inputs.end(), [&](Id input) { return marked_[input]; });
  for (const Id output : outputs) {
    constant_[output] = constant;
    marked_[output] = marked;
  }
  constexpr int64_t kFewElements = 64;
  const auto few = [&](Id id) { return !shape(id).open() && shape(id).elements() <= kFewElements; };
  if (!constant || !marked || outputs.size() != 1 || !few(outputs[0]) ||
      !std::all_of(inputs.begin(), inputs.end(), few)) {
    return;
  }
  Marks marks = MarksThrough(graph_.nodes()[graph_.value(outputs[0]).producer]);
  const auto is_number = [](Mark mark) { return mark == kNumber; };
  marked_[outputs[0]] = !std::all_of(marks.begin(), marks.end(), is_number);
  if (marked_[outputs[0]]) marks_[outputs[0]] = std::move(marks);
}

Marks Builder::MarksThrough(const graph::Node& node) {
  const std::string_view op = node.op->name();
  const Id output = node.outputs[0];
  if (op == "convert") {
    // A mark fits 32 bits, a product 64. As a number of another type it is one no more.
    const bool wide = IsOneOf(DTypeName(dtype(output)), {"i64", "u64"});
    const bool fits = wide || IsOneOf(DTypeName(dtype(output)), {"i32", "u32"});
    Marks marks = MarksOf(node.inputs[0]);
    for (Mark& mark : marks) {
      if ((mark == kLength && !fits) || (mark == kProduct && !wide)) mark = kComputed;
    }
    return marks;
  }
  if (IsOneOf(op, {"unary_math", "scale"})) {
    Marks marks = MarksOf(node.inputs[0]);
    for (Mark& mark : marks) mark = mark == kNumber ? kNumber : kComputed;
    return marks;
  }
  if (IsOneOf(op, {"binary_math", "add", "sub", "mul", "div", "select"})) {
    Marks marks = MarksOfElements(node);
    const bool wide = IsOneOf(DTypeName(dtype(output)), {"i64", "u64"});
    for (Mark& mark : marks) mark = mark == kProduct && !wide ? kComputed : mark;
    return marks;
  }
  const Ints moved = MovedInputs(node);
  Marks marks(shape(output).elements(), kComputed);
  if (moved.empty()) return marks;
  // The same done to the marks themselves.
  std::vector<HostTensor> tensors;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Id input = node.inputs[i];
    if (std::find(moved.begin(), moved.end(), static_cast<int64_t>(i)) == moved.end()) {
      if (HasMarks(input)) return marks;
      tensors.push_back(Evaluate(input, "a place"));
      continue;
    }
    std::vector<double> numbers;
    for (const Mark mark : MarksOf(input)) numbers.push_back(static_cast<double>(mark));
    tensors.push_back(TensorOf(dtype(input), shape(input), numbers));
  }
  const HostTensor through = Compute(node, std::move(tensors));
  const Ints numbers = AsIntegers(through);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const bool computed = numbers[i] != 0 && dtype(output) == DType::kBool;
    marks[i] = computed ? kComputed : static_cast<Mark>(numbers[i]);
  }
  return marks;
}

Marks Builder::MarksOfElements(const graph::Node& node) {
  struct Input {
    Marks marks;
    Ints numbers;
    Ints places;
    Element at(size_t i) const {
      const auto place = static_cast<size_t>(places[i]);
      return {marks[place], numbers[place]};
    }
  };
  const Shape& whole = shape(node.outputs[0]);
  std::vector<Input> inputs;
  for (const Id input : node.inputs) {
    inputs.push_back(
        {MarksOf(input), AsIntegers(Evaluate(input, "a shape")), Places(shape(input), whole)});
  }
  const std::string function = node.op->name() == "binary_math" ? node.attributes.Text("function")
                                                                : std::string(node.op->name());
  Marks marks(whole.elements());
  for (size_t i = 0; i < marks.size(); ++i) {
    const Element first = inputs[0].at(i);
    marks[i] = function != "select"    ? OfPair(function, first, inputs[1].at(i))
               : first.mark != kNumber ? kComputed
                                       : inputs[first.number != 0 ? 1 : 2].at(i).mark;
  }
  return marks;
}

}  // namespace lepton::onnx
