// What tests of kernels share: the list's entries of an op, and how their outputs are compared.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {

inline constexpr graph::RunState kParityState{12345, 7, 3};

// Of kernels::CpuKernels(), in its order: the fastest first, the reference last.
std::vector<graph::KernelEntry> EntriesOf(std::string_view op, DType dtype);

// |got - wanted| <= tolerance * (1 + |wanted|), for bf16 at least its last place; 0: the same bits.
void ExpectNear(HostTensor& got, HostTensor& wanted, double tolerance, const std::string& what);

}  // namespace lepton::engine_test
