#include <cmath>
#include <functional>
#include <limits>

#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/strided.h"
#include "runtime/kernels/general/element_types.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/general/walk.h"

namespace lepton::kernels::general {
namespace {

constexpr int64_t kUnaryGrain = 1 << 14;  // elements for which another thread is worth waking

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

// The loops over threads and rows are compiled once and call what a row takes through a pointer:
// only that is compiled for each type and function.
using EachPart = void (*)(const void* function, const void* x, void* y, int64_t begin, int64_t end);

void RunEach(const KernelContext& context, EachPart part, const void* function) {
  const void* x = context.input(0).data;
  void* y = context.output(0).data;
  ComputeLoop(context.input(0).elements(), kUnaryGrain,
              [&](int64_t begin, int64_t end) { part(function, x, y, begin, end); });
}

// function of every element, over threads.
template <typename T, typename Out, typename Function>
void Each(const KernelContext& context, const Function& function) {
  RunEach(
      context,
      [](const void* state, const void* in, void* out, int64_t begin, int64_t end) {
        const auto& apply = *static_cast<const Function*>(state);
        const T* x = static_cast<const T*>(in);
        Out* y = static_cast<Out*>(out);
        for (int64_t i = begin; i < end; ++i) y[i] = apply(x[i]);
      },
      &function);
}

// The common functions of f32, in f32 and spelt out, so that the compiler sees through them.
bool UnaryF32(const KernelContext& context, const std::string& name) {
  const auto each = [&](const auto& function) {
    Each<float, float>(context, function);
    return true;
  };
  if (name == "abs") return each([](float x) { return std::fabs(x); });
  if (name == "neg") return each([](float x) { return -x; });
  if (name == "reciprocal") return each([](float x) { return 1 / x; });
  if (name == "sqrt") return each([](float x) { return std::sqrt(x); });
  if (name == "exp") return each([](float x) { return std::exp(x); });
  if (name == "log") return each([](float x) { return std::log(x); });
  if (name == "erf") return each([](float x) { return std::erf(x); });
  return false;
}

template <typename T>
void UnaryFloat(const KernelContext& context, const std::string& name) {
  if constexpr (std::is_same_v<T, float>) {
    if (UnaryF32(context, name)) return;
  }
  if (const FloatFunction function = FindFloatFunction(name)) {
    return Each<T, T>(context, [&](T x) { return Store<T>(function(double{Load(x)})); });
  }
  const bool no_minus = name == "is_pos_inf", no_plus = name == "is_neg_inf";
  if (name == "is_nan") {
    return Each<T, bool>(context, [](T x) { return std::isnan(double{Load(x)}); });
  }
  Each<T, bool>(context, [&](T x) {
    const double value = Load(x);
    return std::isinf(value) && !(no_minus && value < 0) && !(no_plus && value > 0);
  });
}

template <typename T>
void UnaryInteger(const KernelContext& context, const std::string& name) {
  // Through unsigned: the lowest number has no opposite and stays itself.
  const auto opposite = [](T x) { return static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x)); };
  if (name == "abs") {
    Each<T, T>(context, [&](T x) { return x < T{0} ? opposite(x) : x; });
  } else if (name == "neg") {
    Each<T, T>(context, opposite);
  } else if (name == "sign") {
    Each<T, T>(context, [](T x) { return static_cast<T>((x > T{0}) - (x < T{0})); });
  } else {
    Each<T, T>(context, [](T x) { return static_cast<T>(~static_cast<uint64_t>(x)); });
  }
}

// The usual rows are spelt out, for the compiler to make vector code of.
template <typename T, typename Out, typename Function>
void PairRow(int64_t count, const T* a, int64_t step_a, const T* b, int64_t step_b, Out* y,
             const Function& function) {
  const auto pair = [&](T left, T right) { return Store<Out>(function(Load(left), Load(right))); };
  if (step_a == 1 && step_b == 1) {
    for (int64_t i = 0; i < count; ++i) y[i] = pair(a[i], b[i]);
  } else if (step_a == 1 && step_b == 0) {
    const T constant = *b;
    for (int64_t i = 0; i < count; ++i) y[i] = pair(a[i], constant);
  } else if (step_a == 0 && step_b == 1) {
    const T constant = *a;
    for (int64_t i = 0; i < count; ++i) y[i] = pair(constant, b[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) y[i] = pair(a[i * step_a], b[i * step_b]);
  }
}

using PairPart = void (*)(const void* function, int64_t count, const void* a, int64_t step_a,
                          const void* b, int64_t step_b, void* y);

void RunPairs(const KernelContext& context, int64_t size, int64_t out_size, PairPart part,
              const void* function) {
  const TensorView& a = context.input(0);
  const TensorView& b = context.input(1);
  const Shape& shape = context.output(0).shape();
  if (shape.elements() == 0) return;
  const auto* left = a.as<char>();
  const auto* right = b.as<char>();
  auto* y = context.output(0).as<char>();
  const StridedLoop<3> loop(shape, {RepeatStrides(a.shape(), shape),
                                    RepeatStrides(b.shape(), shape), DenseStrides(shape)});
  loop.Run([&](const auto& offset, int64_t count, const auto& step) {
    part(function, count, left + size * offset[0], step[0], right + size * offset[1], step[1],
         y + out_size * offset[2]);
  });
}

template <typename T, typename Out, typename Function>
void Pairs(const KernelContext& context, const Function& function) {
  RunPairs(
      context, sizeof(T), sizeof(Out),
      [](const void* state, int64_t count, const void* a, int64_t step_a, const void* b,
         int64_t step_b, void* y) {
        PairRow(count, static_cast<const T*>(a), step_a, static_cast<const T*>(b), step_b,
                static_cast<Out*>(y), *static_cast<const Function*>(state));
      },
      &function);
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
      Each<bool, bool>(context, [](bool x) { return !x; });
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
  if (shape.elements() == 0) return;
  const StridedLoop<4> loop(shape,
                            {RepeatStrides(context.input(0).shape(), shape),
                             RepeatStrides(context.input(1).shape(), shape),
                             RepeatStrides(context.input(2).shape(), shape), DenseStrides(shape)});
  VisitSize(context.output(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const bool* condition = context.input(0).as<bool>();
    const T* a = context.input(1).as<T>();
    const T* b = context.input(2).as<T>();
    T* y = context.output(0).as<T>();
    loop.Run([&](const auto& offset, int64_t count, const auto& step) {
      const bool* chosen = condition + offset[0];
      const T* left = a + offset[1];
      const T* right = b + offset[2];
      T* out = y + offset[3];
      if (step[0] == 1 && step[1] == 1 && step[2] == 0) {  // a mask of one number
        const T constant = *right;
        for (int64_t i = 0; i < count; ++i) out[i] = chosen[i] ? left[i] : constant;
        return;
      }
      for (int64_t i = 0; i < count; ++i) {
        out[i] = chosen[i * step[0]] ? left[i * step[1]] : right[i * step[2]];
      }
    });
  });
}

}  // namespace lepton::kernels::general
