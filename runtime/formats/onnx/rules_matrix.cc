// Matrix products.
#include <algorithm>
#include <map>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_matrix {

void MatMul(Call& c) {
  if (!c.joined(0) && !c.joined(1)) return c.Set(0, c.b.Matmul(c.in(0), c.in(1)));
  Groups groups = c.groups(0);
  // Rows stay rows, whatever they are joined from.
  if (c.joined(0) && !c.joined(1) && c.b.rank(c.in(1)) == 2) {
    c.OwnAxis(0, -1);
    return c.Set(0, c.b.Matmul(c.whole(0), c.in(1)), std::move(groups));
  }
  // A product for each of what is joined.
  std::vector<Ref> refs = {c.ref(0), c.ref(1)};
  if (groups.size() < 3 || c.groups(1).size() < 3) {
    FailJoined(c.b.shape(c.whole(c.joined(0) ? 0 : 1)));
  }
  groups = Align(c.b, refs, 2);
  c.Set(0, c.b.Matmul(refs[0].id, refs[1].id), std::move(groups));
}

void Gemm(Call& c) {
  Builder& b = c.b;
  Id x = c.whole(0), w = c.in(1);
  Groups groups = c.groups(0);
  if (groups.size() != 2 || b.rank(w) != 2) FailInvalid("inputs 0 and 1 must have two axes");
  const bool by_row = c.has(2) && b.rank(c.in(2)) == 2 && b.shape(c.in(2))[0] != 1;
  if (c.joined(0) && (c.Int("transA", 0) != 0 || by_row)) FailJoined(b.shape(x));
  c.OwnAxis(0, 1);
  if (c.Int("transA", 0) != 0) x = b.Transpose(x, {1, 0});
  if (c.Int("transB", 0) != 0) w = b.Transpose(w, {1, 0});
  Id y = b.Matmul(x, w);
  const double alpha = c.Float("alpha", 1), beta = c.Float("beta", 1);
  if (alpha != 1) y = b.Mul(y, alpha);
  if (c.has(2) && beta != 0) y = b.Add(y, beta == 1 ? c.in(2) : b.Mul(c.in(2), beta));
  c.Set(0, y, std::move(groups));
}

struct Equation {
  std::vector<std::string> inputs;
  std::string output;
};

// "ij, jk -> ik". Without an arrow: the letters that occur once, in order.
Equation ParseEquation(std::string text, size_t inputs) {
  std::erase(text, ' ');
  if (text.find('.') != std::string::npos) FailUnsupported("an ellipsis in " + text);
  Equation equation;
  const size_t arrow = text.find("->");
  std::string left = text.substr(0, arrow);
  left += ',';
  for (size_t start = 0, comma; (comma = left.find(',', start)) != std::string::npos;
       start = comma + 1) {
    equation.inputs.push_back(left.substr(start, comma - start));
  }
  if (equation.inputs.size() != inputs) FailInvalid("equation: must have one term per input");
  if (arrow != std::string::npos) {
    equation.output = text.substr(arrow + 2);
  } else {
    std::map<char, int> uses;
    for (const std::string& term : equation.inputs) {
      for (const char letter : term) ++uses[letter];
    }
    for (const auto& [letter, count] : uses) {
      if (count == 1) equation.output += letter;
    }
  }
  return equation;
}

// Two inputs of which each has an axis of its own, and one that both sum over: a product per index
// of those that they share. False for any other equation.
bool EinsumAsProduct(Call& c, const Equation& equation) {
  if (c.inputs() != 2 || c.b.dtype(c.in(0)) != DType::kF32) return false;
  const std::string& left = equation.inputs[0];
  const std::string& right = equation.inputs[1];
  const auto has = [](const std::string& text, char letter) {
    return std::count(text.begin(), text.end(), letter) == 1;
  };
  std::string shared, rows, columns, summed;
  for (const char letter : left) {
    if (!has(left, letter)) return false;
    const bool kept = has(equation.output, letter);
    (has(right, letter) ? kept ? shared : summed : kept ? rows : columns).push_back(letter);
  }
  if (!columns.empty()) return false;  // summed over in one input alone
  for (const char letter : right) {
    if (!has(right, letter)) return false;
    if (has(left, letter)) continue;
    if (!has(equation.output, letter)) return false;
    columns.push_back(letter);
  }
  const std::string whole = shared + rows + columns;
  if (rows.size() != 1 || columns.size() != 1 || summed.size() != 1 ||
      whole.size() != equation.output.size()) {
    return false;
  }
  const auto order = [](const std::string& from, const std::string& to) {
    Ints perm;
    for (const char letter : to) perm.push_back(static_cast<int64_t>(from.find(letter)));
    return perm;
  };
  Builder& b = c.b;
  const Id a = b.Transpose(c.in(0), order(left, shared + rows + summed));
  const Id z = b.Transpose(c.in(1), order(right, shared + summed + columns));
  c.Set(0, b.Transpose(b.Matmul(a, z), order(whole, equation.output)));
  return true;
}

// Every input as a tensor with all letters for axes; then one product and one sum.
void Einsum(Call& c) {
  Builder& b = c.b;
  const Equation equation = ParseEquation(c.Text("equation", ""), c.inputs());
  if (EinsumAsProduct(c, equation)) return;
  std::string letters = equation.output;
  for (const std::string& term : equation.inputs) {
    for (const char letter : term) {
      if (letters.find(letter) == std::string::npos) letters += letter;
    }
  }
  Id y = graph::kNoValue;
  for (int i = 0; i < c.inputs(); ++i) {
    const std::string& term = equation.inputs[i];
    const Shape shape = b.shape(c.in(i));
    if (static_cast<int>(term.size()) != shape.rank()) FailInvalid("equation: does not fit input");
    Ints dense(shape.rank(), 1);
    for (int axis = shape.rank() - 1; axis > 0; --axis) dense[axis - 1] = dense[axis] * shape[axis];
    Ints extents(letters.size(), 1), strides(letters.size(), 0);
    for (size_t k = 0; k < term.size(); ++k) {
      const size_t at = letters.find(term[k]);
      if (strides[at] != 0 && extents[at] != shape[static_cast<int>(k)]) {
        FailInvalid("equation: a diagonal of unequal extents");
      }
      extents[at] = shape[static_cast<int>(k)];
      strides[at] += dense[k];
    }
    const Id aligned = b.Strided(c.in(i), extents, strides);
    y = i == 0 ? aligned : b.Mul(y, aligned);
  }
  Ints summed;
  for (size_t i = equation.output.size(); i < letters.size(); ++i) {
    summed.push_back(static_cast<int64_t>(i));
  }
  c.Set(0, b.Reduce("sum", y, summed, false));
}

// Products and sums of rows and columns, by expansion along the first row.
Id Determinant(Builder& b, Id x, int64_t n) {
  const int last = b.rank(x) - 1;
  const auto element = [&](int64_t column) {
    return b.Slice(b.Slice(x, last - 1, 0, 1, 1), last, column, 1, 1);
  };
  if (n == 1) return element(0);
  Id sum = graph::kNoValue;
  const Id below = b.Slice(x, last - 1, 1, 1, n - 1);
  for (int64_t column = 0; column < n; ++column) {
    std::vector<Id> parts;
    if (column > 0) parts.push_back(b.Slice(below, last, 0, 1, column));
    if (column + 1 < n) parts.push_back(b.Slice(below, last, column + 1, 1, n - 1 - column));
    const Id minor = Determinant(b, b.Concat(parts, last), n - 1);
    const Id term = b.Mul(element(column), minor);
    sum = column == 0 ? term : column % 2 == 0 ? b.Add(sum, term) : b.Sub(sum, term);
  }
  return sum;
}

void Det(Call& c) {
  const Id x = c.in(0);
  const int rank = c.b.rank(x);
  if (rank < 2 || c.b.shape(x).back() != c.b.shape(x)[rank - 2]) {
    FailInvalid("input 0 must be square");
  }
  const int64_t n = c.b.shape(x).back();
  if (n < 1 || n > 5) FailUnsupported("matrices larger than 5 x 5");
  c.Set(0, c.b.Squeeze(Determinant(c.b, x, n), {-2, -1}));
}

constexpr Rule kRules[] = {
    {"Det", 11, "f16, bf16, f32, f64", Det},
    {"Einsum", 12, "all numbers", Einsum},
    {"Gemm", 7, "all numbers", Gemm},
    {"MatMul", 1, "all numbers", MatMul},
};

}  // namespace rules_matrix

std::span<const Rule> MatrixRules() {
  return rules_matrix::kRules;
}

}  // namespace lepton::onnx
