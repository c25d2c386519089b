#include "runtime/kernels/cpu/pointwise/function.h"

namespace lepton::kernels::pointwise {
namespace {

using simd::Loops;

template <auto member>
void OfOne(float, int64_t count, const float* a, const float*, float* y) {
  (simd::BestLoops().*member)(count, a, y);
}

template <auto member>
void OfTwo(float, int64_t count, const float* a, const float* b, float* y) {
  (simd::BestLoops().*member)(count, a, b, y);
}

void ScaleBy(float factor, int64_t count, const float* a, const float*, float* y) {
  simd::BestLoops().scale(count, factor, a, y);
}

float FactorOf(const graph::Attributes& attributes) {
  return static_cast<float>(attributes.Float("factor", 1));
}

constexpr Function kFunctions[] = {
    {"add", 2, OfTwo<&Loops::add>},
    {"bias_add", 2, OfTwo<&Loops::add>},
    {"div", 2, OfTwo<&Loops::div>},
    {"gelu", 1, OfOne<&Loops::gelu>, nullptr, &Loops::gelu_rows},
    {"gelu_grad", 2, OfTwo<&Loops::gelu_grad>, nullptr, nullptr, &Loops::gelu_grad_rows},
    {"gelu_tanh", 1, OfOne<&Loops::gelu_tanh>, nullptr, &Loops::gelu_tanh_rows},
    {"gelu_tanh_grad", 2, OfTwo<&Loops::gelu_tanh_grad>, nullptr, nullptr,
     &Loops::gelu_tanh_grad_rows},
    {"mul", 2, OfTwo<&Loops::mul>},
    {"relu", 1, OfOne<&Loops::relu>},
    {"relu_grad", 2, OfTwo<&Loops::relu_grad>},
    {"scale", 1, ScaleBy, FactorOf},
    {"sigmoid", 1, OfOne<&Loops::sigmoid>},
    {"sigmoid_grad", 2, OfTwo<&Loops::sigmoid_grad>},
    {"silu", 1, OfOne<&Loops::silu>},
    {"silu_grad", 2, OfTwo<&Loops::silu_grad>},
    {"sub", 2, OfTwo<&Loops::sub>},
    {"tanh", 1, OfOne<&Loops::tanh>},
    {"tanh_grad", 2, OfTwo<&Loops::tanh_grad>},
};

}  // namespace

const Function* FindFunction(std::string_view op) {
  for (const Function& function : kFunctions) {
    if (function.op == op) return &function;
  }
  return nullptr;
}

}  // namespace lepton::kernels::pointwise
