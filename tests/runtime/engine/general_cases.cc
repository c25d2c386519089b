#include "tests/runtime/engine/general_cases.h"

#include <cmath>
#include <cstring>

#include "runtime/kernels/general/element_types.h"
#include "runtime/ops/general/binary_math.h"
#include "runtime/ops/general/general_op_list.h"
#include "runtime/ops/general/unary_math.h"

namespace lepton::engine_test {
namespace {

using graph::Attributes;
using GeneralInts = std::vector<int64_t>;

// Numbers of any type: of floating ones in [low, high), of others rounded down; sizes of unsigned
// ones.
HostTensor NumbersOf(TensorType type, uint32_t seed, double low = -2, double high = 6) {
  HostTensor tensor = MakeTensor(std::move(type));
  kernels::general::VisitType(tensor.type.dtype, [&]<typename T>(kernels::general::TypeTag<T>) {
    T* numbers = tensor.data.as<T>();
    for (int64_t i = 0; i < tensor.type.shape.elements(); ++i) {
      uint32_t bits = (static_cast<uint32_t>(i) + seed * 7919u) * 2654435761u;
      bits = (bits ^ bits >> 15) * 2246822519u;
      double value = low + (high - low) * (bits >> 8) / (1 << 24);
      if (!kernels::general::kFloating<T>) value = std::floor(value);
      if (std::is_unsigned_v<T>) value = std::abs(value);
      numbers[i] = kernels::general::Store<T>(value);
    }
  });
  return tensor;
}

// Also such that count from the end.
HostTensor IndicesOf(const Shape& shape, int64_t extent) {
  return NumbersOf({DType::kI64, shape}, 5, static_cast<double>(-extent),
                   static_cast<double>(extent));
}

struct Family {
  std::string_view op;
  DType dtype;
  int64_t rows, n;
  std::vector<OpCase>& cases;

  TensorType Of(Shape shape) const { return {dtype, std::move(shape)}; }
  HostTensor Plane(uint32_t seed = 1) const { return NumbersOf(Of({rows, n}), seed); }
  bool number() const { return dtype != DType::kBool; }
  template <typename... Tensors>
  void Add(std::string label, Attributes attributes, Tensors... tensors) const {
    cases.push_back(MakeCase(std::move(label), std::move(attributes), {}, std::move(tensors)...));
  }
};

void AddFunctions(const Family& f) {
  if (f.op == "unary_math") {
    for (const std::string_view function : ops::general::UnaryFunctions(f.dtype)) {
      f.Add(std::string(function), {{"function", std::string(function)}}, f.Plane());
    }
  } else if (f.op == "binary_math") {
    for (const std::string_view function : ops::general::BinaryFunctions(f.dtype)) {
      const std::string name(function);
      f.Add(name, {{"function", name}}, f.Plane(1), f.Plane(2));
      f.Add(name + " of a row", {{"function", name}}, f.Plane(1), NumbersOf(f.Of({f.n}), 2));
      f.Add(name + " of a column", {{"function", name}}, NumbersOf(f.Of({f.rows, 1}), 1),
            f.Plane(2));
    }
  } else if (f.op == "select") {
    for (const Shape& shape : {Shape({f.rows, f.n}), Shape({f.n}), Shape()}) {
      f.Add("", {}, NumbersOf({DType::kBool, {f.rows, f.n}}, 3), f.Plane(1),
            NumbersOf(f.Of(shape), 2));
    }
  } else if (f.op == "convert") {
    for (const char* to : {"f32", "bf16", "i8", "u64", "bool"}) f.Add(to, {{"to", to}}, f.Plane());
  }
}

void AddMoves(const Family& f) {
  const int64_t rows = f.rows, n = f.n;
  if (f.op == "strided") {
    const auto strided = [&](const char* label, GeneralInts shape, GeneralInts strides) {
      f.Add(label,
            {{"shape", std::move(shape)}, {"strides", std::move(strides)}, {"offset", int64_t{0}}},
            f.Plane());
    };
    strided("transposed", {n, rows}, {1, n});
    strided("repeated", {3, rows, n}, {0, n, 1});
    strided("one number", {rows, n}, {0, 0});
    if (n > 2) strided("windows", {rows, n - 2, 3}, {n, 1, 1});
  } else if (f.op == "pad_constant") {
    f.Add("", {{"before", GeneralInts{1, 2}}, {"after", GeneralInts{0, -1}}}, f.Plane(),
          NumbersOf(f.Of({}), 2));
  } else if (f.op == "join" || f.op == "concat") {
    f.Add("rows", {{"axis", int64_t{0}}}, f.Plane(1), f.Plane(2));
    f.Add("columns", {{"axis", int64_t{1}}}, f.Plane(1), NumbersOf(f.Of({rows, 3}), 2));
  } else if (f.op == "constant") {
    HostTensor numbers = f.Plane();
    f.Add("", {{"dtype", std::string(DTypeName(f.dtype))},
               {"shape", GeneralInts{rows, n}},
               {"data", std::string(numbers.data.as<char>(), numbers.data.size())}});
  } else if (f.op == "index_range") {
    f.Add("", {{"axis", int64_t{1}}}, f.Plane());
  } else if (f.op == "repeat") {
    f.Add("of a row", {{"shape", GeneralInts{rows, n}}}, NumbersOf(f.Of({n}), 1));
    f.Add("of a plane", {{"shape", GeneralInts{3, rows, n}}}, f.Plane());
    f.Add("of an open extent",
          {{"shape", GeneralInts{-1, n}}, {"marks", GeneralInts{-1}}, {"axes", GeneralInts{0}}},
          NumbersOf(f.Of({1, n}), 1), NumbersOf(F32({rows}), 2));
  } else if (f.op == "reshape") {
    f.Add("", {{"shape", GeneralInts{n, -1}}}, f.Plane());
  } else if (f.op == "transpose") {
    f.Add("", {{"perm", GeneralInts{1, 0}}}, f.Plane());
  } else if (f.op == "slice") {
    f.Add("", {{"axis", int64_t{1}}, {"begin", int64_t{0}}, {"end", n}, {"step", int64_t{2}}},
          f.Plane());
  }
}

void AddAxes(const Family& f) {
  if (!f.number()) return;
  if (f.op == "reduce_axes") {
    const HostTensor cube = NumbersOf(f.Of({2, f.rows, f.n}), 1);
    for (const char* function : {"sum", "prod", "max", "min", "l1", "sum_square", "mean"}) {
      for (const GeneralInts& axes : {GeneralInts{2}, {1}, {0, 2}, {0, 1}}) {
        f.Add(std::string(function) + " of " + Shape(axes).ToString(),
              {{"function", function}, {"axes", axes}}, Copy(cube));
      }
    }
    return;
  }
  for (const int64_t axis : {0, 1}) {
    for (const int64_t flag : {0, 1}) {
      if (f.op == "arg_extreme") {
        f.Add("", {{"axis", axis}, {"largest", flag}, {"last", axis}}, f.Plane());
      } else if (f.op == "cumulative_sum") {
        f.Add("", {{"axis", axis}, {"exclusive", flag}, {"reverse", axis}}, f.Plane());
      } else if (f.op == "top_k") {
        f.Add("", {{"axis", axis}, {"k", std::min<int64_t>(2, f.rows)}, {"largest", flag}},
              f.Plane());
      }
    }
  }
  if (f.op != "general_matmul" || f.dtype == DType::kF16 || f.dtype == DType::kBF16) return;
  const int64_t inner = std::min<int64_t>(f.n, 40);
  f.Add("", {}, NumbersOf(f.Of({2, f.rows, inner}), 1), NumbersOf(f.Of({inner, inner + 3}), 2));
}

void AddIndexed(const Family& f) {
  const int64_t rows = f.rows, n = f.n;
  const auto each_reduction = [&](const auto& add) {
    for (const char* reduction : {"none", "add", "mul", "min", "max"}) {
      if (f.number() || reduction == std::string_view("none")) add(reduction);
    }
  };
  if (f.op == "take") {
    f.Add("rows", {{"axis", int64_t{0}}}, f.Plane(), IndicesOf({rows + 1}, rows));
    f.Add("columns", {{"axis", int64_t{1}}}, f.Plane(), IndicesOf({n, 2}, n));
  } else if (f.op == "gather_elements") {
    f.Add("", {{"axis", int64_t{1}}}, f.Plane(), IndicesOf({rows, n + 1}, n));
  } else if (f.op == "scatter_elements") {
    each_reduction([&](const char* reduction) {
      f.Add(reduction, {{"axis", int64_t{0}}, {"reduction", reduction}}, f.Plane(1),
            IndicesOf({rows, n}, rows), f.Plane(2));
    });
  } else if (f.op == "gather_nd") {
    f.Add("", {{"batch_axes", int64_t{0}}}, f.Plane(), IndicesOf({rows, 2}, std::min(rows, n)));
    f.Add("rows", {{"batch_axes", int64_t{0}}}, f.Plane(), IndicesOf({rows + 2, 1}, rows));
  } else if (f.op == "scatter_nd") {
    each_reduction([&](const char* reduction) {
      f.Add(reduction, {{"reduction", reduction}}, f.Plane(1), IndicesOf({rows, 1}, rows),
            f.Plane(2));
    });
  }
}

const graph::Op* GeneralOpNamed(std::string_view name) {
  for (const graph::Op* op : ops::general::GeneralOps()) {
    if (op->name() == name) return op;
  }
  return nullptr;
}

}  // namespace

std::vector<OpCase> GeneralCasesFor(std::string_view op, DType dtype, int64_t rows, int64_t n) {
  std::vector<OpCase> cases;
  const Family family{op, dtype, rows, n, cases};
  AddFunctions(family);
  AddMoves(family);
  AddAxes(family);
  AddIndexed(family);
  for (OpCase& op_case : cases) op_case.op = GeneralOpNamed(op);
  return cases;
}

}  // namespace lepton::engine_test
