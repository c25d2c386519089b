// Which masks are causal: proven from the graph that makes them, for every length of the sequence.
//
// Each value of that graph is read as a function of the places along its open axes: a sum of places
// (index_range and what is added to it), or something that depends on how far the query lies behind
// the key alone, constant over intervals of that distance (comparisons of such sums, tables over
// the longest context, and what is computed from these element by element). Whatever is neither
// leaves the mask unproven, and the attention as it was written.
#include <climits>
#include <cmath>
#include <cstring>

#include "runtime/formats/onnx/patterns.h"
#include "runtime/graph/executor.h"

namespace lepton::onnx::patterns {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxPieces = 4096;
constexpr int64_t kMaxTable = int64_t{1} << 24;

// Axes are counted from the last one, which is -1, so that they stay the same under broadcasting.
struct PlaceFunction {
  // A sum: offset + slope * place for each axis named. Without slopes it is one number everywhere.
  bool is_sum = false;
  std::map<int, int64_t> slopes;
  double offset = 0;
  // Otherwise values[k] where starts[k] <= place on `query` - place on `key` < starts[k + 1];
  // starts[0] is the lowest integer. `query` is 0 for a single piece.
  int query = 0, key = 0;
  std::vector<int64_t> starts;
  HostTensor values;
};

bool CountsExactly(DType dtype) {
  return dtype == DType::kI32 || dtype == DType::kI64 || dtype == DType::kF32 ||
         dtype == DType::kF64;
}

bool IsElementwise(std::string_view op) {
  for (const char* name :
       {"binary_math", "unary_math", "select", "convert", "add", "sub", "mul", "div", "scale"}) {
    if (op == name) return true;
  }
  return false;
}

bool Compares(std::string_view function) {
  return function == "less" || function == "less_equal" || function == "greater" ||
         function == "greater_equal" || function == "equal";
}

// Elements of a tensor, as a vector.
HostTensor Chosen(const HostTensor& from, const std::vector<int64_t>& at) {
  HostTensor chosen(TensorType{from.type.dtype, Shape({static_cast<int64_t>(at.size())})});
  const size_t size = DTypeSize(from.type.dtype);
  const auto* bytes = static_cast<const char*>(from.data.data());
  for (size_t i = 0; i < at.size(); ++i) {
    std::memcpy(chosen.data.as<char>() + i * size, bytes + at[i] * size, size);
  }
  return chosen;
}

class MaskReader {
 public:
  explicit MaskReader(Builder& b) : b_(b) {}

  // Null: nothing is known of it.
  const PlaceFunction* Read(Id id) {
    if (const auto found = read_.find(id); found != read_.end()) {
      return found->second ? &*found->second : nullptr;
    }
    if (depth_ >= kMaxDepth) return nullptr;
    ++depth_;
    std::optional<PlaceFunction> function = Find(id);
    --depth_;
    auto& kept = read_[id];
    kept = std::move(function);
    return kept ? &*kept : nullptr;
  }

 private:
  using Found = std::optional<PlaceFunction>;

  Found Find(Id id) {
    if (const auto number = b_.Number(id)) {
      PlaceFunction same;
      same.is_sum = b_.dtype(id) != DType::kBool;
      same.offset = *number;
      same.starts = {INT64_MIN};
      same.values = TensorOf(b_.dtype(id), Shape({1}), {*number});
      return same;
    }
    const graph::NodeId producer = b_.graph().value(id).producer;
    if (producer == graph::kNoNode) return std::nullopt;
    const graph::Node& node = b_.graph().nodes()[producer];
    const std::string_view op = node.op->name();
    if (op == "index_range") {
      if (b_.shape(id)[0] != Shape::kSequence) return std::nullopt;
      return Sum({{-1, 1}}, 0);
    }
    if (op == "reshape" || op == "transpose") return Moved(node, id);
    // The same elements on axes that are counted from the last.
    if (op == "repeat") return CopyOf(Read(node.inputs[0]));
    if (op == "gather" || op == "take") return Table(id);
    if (!IsElementwise(op)) return std::nullopt;
    std::vector<const PlaceFunction*> inputs;
    for (const Id input : node.inputs) {
      inputs.push_back(Read(input));
      if (inputs.back() == nullptr) return std::nullopt;
    }
    const auto varies = [](const PlaceFunction* f) { return f->is_sum && !f->slopes.empty(); };
    return std::any_of(inputs.begin(), inputs.end(), varies) ? OfSums(node, inputs)
                                                             : OfPieces(node, inputs);
  }

  static Found Sum(std::map<int, int64_t> slopes, double offset) {
    PlaceFunction sum;
    sum.is_sum = true;
    sum.slopes = std::move(slopes);
    sum.offset = offset;
    return sum;
  }

  static Found CopyOf(const PlaceFunction* from) {
    if (from == nullptr) return std::nullopt;
    PlaceFunction copy;
    copy.is_sum = from->is_sum;
    copy.slopes = from->slopes;
    copy.offset = from->offset;
    copy.query = from->query;
    copy.key = from->key;
    copy.starts = from->starts;
    if (!copy.starts.empty()) copy.values = from->values.Copy();
    return copy;
  }

  // The open axes, if all others have one element.
  std::optional<std::vector<int>> OpenAxes(Id id) {
    std::vector<int> axes;
    for (int axis = -b_.rank(id); axis < 0; ++axis) {
      const int64_t extent = b_.shape(id)[axis + b_.rank(id)];
      if (extent == Shape::kSequence) axes.push_back(axis);
      if (extent != Shape::kSequence && extent != 1) return std::nullopt;
    }
    return axes;
  }

  Found Moved(const graph::Node& node, Id id) {
    const Id x = node.inputs[0];
    Found moved = CopyOf(Read(x));
    const auto before = OpenAxes(x), after = OpenAxes(id);
    if (!moved || !before || !after || before->size() != after->size()) return std::nullopt;
    std::map<int, int> place;
    if (node.op->name() == "transpose") {
      const Ints perm = node.attributes.Ints("perm");
      const int rank = static_cast<int>(perm.size());
      for (int axis = 0; axis < rank; ++axis) {
        place[static_cast<int>(perm[axis]) - rank] = axis - rank;
      }
    } else {
      for (size_t i = 0; i < before->size(); ++i) place[(*before)[i]] = (*after)[i];
    }
    std::map<int, int64_t> slopes;
    for (const auto& [axis, slope] : moved->slopes) {
      if (!place.contains(axis)) return std::nullopt;
      slopes[place[axis]] = slope;
    }
    moved->slopes = std::move(slopes);
    if (moved->query == 0) return moved;
    if (!place.contains(moved->query) || !place.contains(moved->key)) return std::nullopt;
    moved->query = place[moved->query];
    moved->key = place[moved->key];
    if (moved->query > moved->key) return std::nullopt;
    return moved;
  }

  // A constant [1.., n, 1.., n] of which both axes are cut to the length: no length above n exists,
  // so beyond it anything may be said.
  Found Table(Id id) {
    Id table = id;
    std::set<int> axes;
    while (!b_.IsConstant(table)) {
      const graph::Node* cut = b_.Producer(table, "gather");
      if (cut == nullptr) cut = b_.Producer(table, "take");
      if (cut == nullptr || b_.rank(cut->inputs[1]) != 1) return std::nullopt;
      const PlaceFunction* places = Read(cut->inputs[1]);
      const bool in_order = places != nullptr && places->is_sum && places->offset == 0 &&
                            places->slopes == std::map<int, int64_t>{{-1, 1}};
      const int axis = static_cast<int>(cut->attributes.Int("axis")) - b_.rank(table);
      if (!in_order || !axes.insert(axis).second) return std::nullopt;
      table = cut->inputs[0];
    }
    const Shape& shape = b_.shape(table);
    if (axes.size() != 2 || shape.elements() > kMaxTable || b_.HasMarks(table)) return std::nullopt;
    const int query = *axes.begin(), key = *axes.rbegin();
    const int64_t n = shape[query + shape.rank()];
    if (n < 1 || shape[key + shape.rank()] != n || shape.elements() != n * n) return std::nullopt;
    const HostTensor tensor = b_.Evaluate(table, "a mask");
    const std::vector<double> elements = AsDoubles(tensor);
    // The first row and the first column say what every distance has.
    const auto first = [n](int64_t distance) { return distance >= 0 ? distance * n : -distance; };
    for (int64_t i = 0; i < n * n; ++i) {
      if (elements[i] != elements[first(i / n - i % n)]) return std::nullopt;
    }
    PlaceFunction function;
    std::vector<int64_t> at;
    for (int64_t distance = 1 - n; distance < n; ++distance) {
      if (!at.empty() && elements[at.back()] == elements[first(distance)]) continue;
      function.starts.push_back(at.empty() ? INT64_MIN : distance);
      at.push_back(first(distance));
    }
    if (at.size() > kMaxPieces) return std::nullopt;
    if (at.size() > 1) function.query = query;
    if (at.size() > 1) function.key = key;
    function.values = Chosen(tensor, at);
    return function;
  }

  Found OfSums(const graph::Node& node, const std::vector<const PlaceFunction*>& inputs) {
    const DType dtype = b_.dtype(node.inputs[0]);
    if (!CountsExactly(dtype) || !CountsExactly(b_.dtype(node.outputs[0])) ||
        !std::all_of(inputs.begin(), inputs.end(), [](auto* f) { return f->is_sum; })) {
      return Compared(node, inputs, dtype);
    }
    if (node.op->name() == "convert") return CopyOf(inputs[0]);
    const std::string function = Function(node);
    if (function != "add" && function != "sub") return std::nullopt;
    return Combined(*inputs[0], *inputs[1], function == "add" ? 1 : -1);
  }

  static std::string Function(const graph::Node& node) {
    return node.op->name() == "binary_math" ? node.attributes.Text("function")
                                            : std::string(node.op->name());
  }

  static Found Combined(const PlaceFunction& a, const PlaceFunction& b, int sign) {
    Found sum = Sum(a.slopes, a.offset + sign * b.offset);
    for (const auto& [axis, slope] : b.slopes) sum->slopes[axis] += sign * slope;
    std::erase_if(sum->slopes, [](const auto& item) { return item.second == 0; });
    // A difference of equal places is a number, but not one that was computed here.
    if (sum->slopes.empty()) return std::nullopt;
    return sum;
  }

  Found Compared(const graph::Node& node, const std::vector<const PlaceFunction*>& inputs,
                 DType dtype) {
    if (node.op->name() != "binary_math" || !Compares(Function(node)) || !CountsExactly(dtype) ||
        !inputs[0]->is_sum || !inputs[1]->is_sum) {
      return std::nullopt;
    }
    const Found sum = Combined(*inputs[0], *inputs[1], -1);
    if (!sum || sum->slopes.size() != 2 || !(std::abs(sum->offset) < 1e9) ||
        sum->offset != std::floor(sum->offset)) {
      return std::nullopt;
    }
    const auto [query, slope] = *sum->slopes.begin();
    const auto [key, other] = *sum->slopes.rbegin();
    if (std::abs(slope) != 1 || other != -slope) return std::nullopt;
    // Of slope * distance + offset the sign counts, which changes once.
    const int64_t zero = -slope * static_cast<int64_t>(sum->offset);
    PlaceFunction function;
    function.query = query;
    function.key = key;
    function.starts = {INT64_MIN, zero, zero + 1};
    const auto before = static_cast<double>(-slope), after = static_cast<double>(slope);
    std::vector<HostTensor> sides;
    sides.push_back(TensorOf(dtype, Shape({3}), {before, 0, after}));
    sides.push_back(TensorOf(dtype, Shape({3}), {0, 0, 0}));
    function.values = Compute(node, std::move(sides));
    return function;
  }

  Found OfPieces(const graph::Node& node, const std::vector<const PlaceFunction*>& inputs) {
    PlaceFunction function;
    std::set<int64_t> starts;
    for (const PlaceFunction* input : inputs) {
      starts.insert(input->starts.begin(), input->starts.end());
      if (input->query == 0) continue;
      if (function.query != 0 && (function.query != input->query || function.key != input->key)) {
        return std::nullopt;
      }
      function.query = input->query;
      function.key = input->key;
    }
    if (starts.size() > kMaxPieces) return std::nullopt;
    function.starts.assign(starts.begin(), starts.end());
    std::vector<HostTensor> pieces;
    for (const PlaceFunction* input : inputs) {
      std::vector<int64_t> at;
      int64_t piece = 0;
      for (const int64_t start : function.starts) {
        const auto count = static_cast<int64_t>(input->starts.size());
        while (piece + 1 < count && input->starts[piece + 1] <= start) ++piece;
        at.push_back(piece);
      }
      pieces.push_back(Chosen(input->values, at));
    }
    function.values = Compute(node, std::move(pieces));
    return function;
  }

  Builder& b_;
  std::map<Id, Found> read_;
  int depth_ = 0;
};

// A mask whose elements are all known.
bool IsCausalTable(Builder& b, Id mask, const MaskElement& fits) {
  const int64_t length = b.shape(mask).back();
  if (length < 2 || b.HasMarks(mask)) return false;
  const std::vector<double> values = AsDoubles(b.Evaluate(mask, "a mask"));
  for (int64_t i = 0; i < length * length; ++i) {
    if (!fits(values[i], i % length <= i / length)) return false;
  }
  return true;
}

}  // namespace

bool IsCausal(Builder& b, Id mask, const MaskElement& fits) {
  const Shape& shape = b.shape(mask);
  if (shape.rank() < 2 || shape.back() != shape[shape.rank() - 2]) return false;
  for (int axis = 0; axis + 2 < shape.rank(); ++axis) {
    if (shape[axis] != 1) return false;
  }
  if (b.IsConstant(mask)) return IsCausalTable(b, mask, fits);
  if (shape.back() != Shape::kSequence) return false;
  MaskReader reader(b);
  const PlaceFunction* function = reader.Read(mask);
  if (function == nullptr || function->query != -2 || function->key != -1) return false;
  const std::vector<double> values = AsDoubles(function->values);
  for (size_t k = 0; k < values.size(); ++k) {
    const bool last = k + 1 == values.size();
    const bool seen = last || function->starts[k + 1] > 0;  // some key up to the query
    const bool ahead = function->starts[k] < 0;
    if ((seen && !fits(values[k], true)) || (ahead && !fits(values[k], false))) return false;
  }
  return true;
}

}  // namespace lepton::onnx::patterns
