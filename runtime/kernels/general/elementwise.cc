#include <cmath>
#include <functional>
#include <limits>

#include "runtime/base/logging.h"
#include "runtime/kernels/general/element_types.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/general/walk.h"

namespace lepton::kernels::general {
namespace {

using FloatFunction = double (*)(double);

// The C++ library's, by name; null when it is not one of them.
FloatFunction FindFloatFunction(std::string_view name) {
  static constexpr std::pair<std::string_view, FloatFunction> kTable[] = {
      {"abs", [](double x) { return std::fabs(x); }},
      {"acos", [](double x) { return std::acos(x); }},
      {"acosh", [](double x) { return std::acosh(x); }},
      {"asin", [](double x) { return std::asin(x); }},
      {"asinh", [](double x) { return std::asinh(x); }},
      {"atan", [](double x) { return std::atan(x); }},
      {"atanh", [](double x) { return std::atanh(x); }},
      {"ceil", [](double x) { return std::ceil(x); }},
      {"cos", [](double x) { return std::cos(x); }},
      {"cosh", [](double x) { return std::cosh(x); }},
      {"erf", [](double x) { return std::erf(x); }},
      {"exp", [](double x) { return std::exp(x); }},
      {"floor", [](double x) { return std::floor(x); }},
      {"log", [](double x) { return std::log(x); }},
      {"neg", [](double x) { return -x; }},
      {"reciprocal", [](double x) { return 1 / x; }},
      {"round", [](double x) { return std::nearbyint(x); }},
      {"sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"sign", [](double x) { return x > 0   ? 1.0
                                     : x < 0 ? -1.0
                                             : x; }},
      {"sin", [](double x) { return std::sin(x); }},
      {"sinh", [](double x) { return std::sinh(x); }},
      {"sqrt", [](double x) { return std::sqrt(x); }},
      {"tan", [](double x) { return std::tan(x); }},
      {"tanh", [](double x) { return std::tanh(x); }},
  };
  for (const auto& [key, function] : kTable) {
    if (key == name) return function;
  }
  return nullptr;
}

template <typename T>
void UnaryFloat(const KernelContext& context, const std::string& name) {
  const auto x = context.input(0).span<const T>();
  if (const FloatFunction function = FindFloatFunction(name)) {
    T* y = context.output(0).as<T>();
    for (size_t i = 0; i < x.size(); ++i) y[i] = Store<T>(function(double{Load(x[i])}));
    return;
  }
  bool* y = context.output(0).as<bool>();
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = Load(x[i]);
    y[i] = name == "is_nan" ? std::isnan(value)
                            : std::isinf(value) && !(name == "is_pos_inf" && value < 0) &&
                                  !(name == "is_neg_inf" && value > 0);
  }
}

template <typename T>
void UnaryInteger(const KernelContext& context, const std::string& name) {
  const auto x = context.input(0).span<const T>();
  T* y = context.output(0).as<T>();
  for (size_t i = 0; i < x.size(); ++i) {
    const T value = x[i];
    // Through unsigned: the lowest number has no opposite and stays itself.
    const T opposite = static_cast<T>(uint64_t{0} - static_cast<uint64_t>(value));
    if (name == "abs") {
      y[i] = value < T{0} ? opposite : value;
    } else if (name == "neg") {
      y[i] = opposite;
    } else if (name == "sign") {
      y[i] = static_cast<T>((value > T{0}) - (value < T{0}));
    } else {
      y[i] = static_cast<T>(~static_cast<uint64_t>(value));
    }
  }
}

template <typename T, typename Out, typename Function>
void Pairs(const KernelContext& context, const Function& function) {
  const TensorView& a = context.input(0);
  const TensorView& b = context.input(1);
  const Shape& shape = context.output(0).shape();
  const T* left = a.as<T>();
  const T* right = b.as<T>();
  Out* y = context.output(0).as<Out>();
  const std::array strides = {RepeatStrides(a.shape(), shape), RepeatStrides(b.shape(), shape)};
  Walk<2>(shape, strides, [&](int64_t i, const std::array<int64_t, 2>& at) {
    y[i] = Store<Out>(function(Load(left[at[0]]), Load(right[at[1]])));
  });
}

template <typename A>
A Modulo(A a, A b, bool sign_of_divisor) {
  if constexpr (std::is_floating_point_v<A>) {
    const A rest = std::fmod(a, b);
    return sign_of_divisor && rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  } else {
    if (b == A{0}) return A{0};
    if constexpr (std::is_signed_v<A>) {
      if (b == A{-1}) return A{0};
    }
    const A rest = static_cast<A>(a % b);
    return sign_of_divisor && rest != 0 && (rest < A{0}) != (b < A{0}) ? static_cast<A>(rest + b)
                                                                       : rest;
  }
}

template <typename A>
A Power(A a, A b) {
  if constexpr (std::is_floating_point_v<A>) {
    return std::pow(a, b);
  } else {
    if constexpr (std::is_signed_v<A>) {
      if (b < 0) return a == 1 ? A{1} : a == -1 ? static_cast<A>(b % 2 == 0 ? 1 : -1) : A{0};
    }
    uint64_t result = 1;
    uint64_t factor = static_cast<uint64_t>(a);
    for (auto left = static_cast<uint64_t>(b); left > 0; left >>= 1) {
      if ((left & 1) != 0) result *= factor;
      factor *= factor;
    }
    return static_cast<A>(result);
  }
}

template <typename A>
A Quotient(A a, A b) {
  if constexpr (std::is_floating_point_v<A>) {
    return a / b;
  } else {
    if (b == A{0}) return A{0};
    if constexpr (std::is_signed_v<A>) {
      if (b == A{-1}) return static_cast<A>(uint64_t{0} - static_cast<uint64_t>(a));
    }
    return static_cast<A>(a / b);
  }
}

// Integers through 64 unsigned bits, where overflow is defined and wraps.
template <typename A, typename Function>
auto Wrapping(Function function) {
  return [function](A a, A b) {
    if constexpr (std::is_floating_point_v<A>) {
      return function(a, b);
    } else {
      return static_cast<A>(function(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
    }
  };
}

// The smaller or larger one; NaN wins.
template <typename A>
A Extreme(A a, A b, bool larger) {
  if constexpr (std::is_floating_point_v<A>) {
    if (std::isnan(a) || std::isnan(b)) return a + b;
  }
  return larger ? std::max(a, b) : std::min(a, b);
}

template <typename T>
bool NumberPairs(const KernelContext& context, const std::string& name) {
  using A = Arithmetic<T>;
  if (name == "add") {
    Pairs<T, T>(context, Wrapping<A>(std::plus<>()));
  } else if (name == "sub") {
    Pairs<T, T>(context, Wrapping<A>(std::minus<>()));
  } else if (name == "mul") {
    Pairs<T, T>(context, Wrapping<A>(std::multiplies<>()));
  } else if (name == "div") {
    Pairs<T, T>(context, [](A a, A b) { return Quotient(a, b); });
  } else if (name == "pow") {
    Pairs<T, T>(context, [](A a, A b) { return Power(a, b); });
  } else if (name == "min" || name == "max") {
    const bool larger = name == "max";
    Pairs<T, T>(context, [larger](A a, A b) { return Extreme(a, b, larger); });
  } else if (name == "mod" || name == "fmod") {
    const bool divisor = name == "mod";
    Pairs<T, T>(context, [divisor](A a, A b) { return Modulo(a, b, divisor); });
  } else if (name == "less") {
    Pairs<T, bool>(context, std::less<>());
  } else if (name == "less_equal") {
    Pairs<T, bool>(context, std::less_equal<>());
  } else if (name == "greater") {
    Pairs<T, bool>(context, std::greater<>());
  } else if (name == "greater_equal") {
    Pairs<T, bool>(context, std::greater_equal<>());
  } else {
    return false;
  }
  return true;
}

template <typename T>
bool BitPairs(const KernelContext& context, const std::string& name) {
  if (name == "bit_and" || name == "and") {
    Pairs<T, T>(context, std::bit_and<>());
  } else if (name == "bit_or" || name == "or") {
    Pairs<T, T>(context, std::bit_or<>());
  } else if (name == "bit_xor" || name == "xor") {
    Pairs<T, T>(context, std::bit_xor<>());
  } else if (name == "shift_left" || name == "shift_right") {
    const bool left = name == "shift_left";
    Pairs<T, T>(context, [left](T a, T b) {
      if (static_cast<uint64_t>(b) >= sizeof(T) * 8) return T{0};
      return static_cast<T>(left ? static_cast<uint64_t>(a) << b
                                 : static_cast<uint64_t>(a >> static_cast<int>(b)));
    });
  } else {
    return false;
  }
  return true;
}

}  // namespace

void UnaryMath(const KernelContext& context) {
  const std::string name = context.attributes().Text("function");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (kFloating<T>) {
      UnaryFloat<T>(context, name);
    } else if constexpr (std::is_same_v<T, bool>) {
      const auto x = context.input(0).span<const bool>();
      for (size_t i = 0; i < x.size(); ++i) context.output(0).as<bool>()[i] = !x[i];
    } else {
      UnaryInteger<T>(context, name);
    }
  });
}

void BinaryMath(const KernelContext& context) {
  const std::string name = context.attributes().Text("function");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    bool done = false;
    if (name == "equal") {
      Pairs<T, bool>(context, std::equal_to<>());
      return;
    }
    if constexpr (!std::is_same_v<T, bool>) done = NumberPairs<T>(context, name);
    if constexpr (!kFloating<T>) done = done || BitPairs<T>(context, name);
    CHECK(done) << "binary_math has no " << name;
  });
}

void Select(const KernelContext& context) {
  const Shape& shape = context.output(0).shape();
  const std::array strides = {RepeatStrides(context.input(0).shape(), shape),
                              RepeatStrides(context.input(1).shape(), shape),
                              RepeatStrides(context.input(2).shape(), shape)};
  VisitSize(context.output(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const bool* condition = context.input(0).as<bool>();
    const T* a = context.input(1).as<T>();
    const T* b = context.input(2).as<T>();
    T* y = context.output(0).as<T>();
    Walk<3>(shape, strides, [&](int64_t i, const std::array<int64_t, 3>& at) {
      y[i] = condition[at[0]] ? a[at[1]] : b[at[2]];
    });
  });
}

}  // namespace lepton::kernels::general
