// What the stand-in for cuBLASLt (fake_cublaslt.cc) was asked, and what it is to refuse. It
// computes nothing: it holds its caller to what the vendor's header says of alignment. Threads:
// one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lepton::cuda_test {

struct FakeCublasLt {
  uint32_t least_alignment = 0;  // no algorithm for operands that are aligned to fewer bytes
  bool refuses_bias = false;
  size_t workspace_bytes = 0;  // that each algorithm wants, at a multiple of 256
  bool bad_state = false;      // the heuristics find something, which is not to be used

  void* last_workspace = nullptr;
  int products = 0;             // that ran
  uint32_t last_alignment = 0;  // what the algorithm of the last one wants of its operands
  uint32_t last_sums = 0;       // cublasLtReductionScheme_t's bits that it was free to use
};

// By this name in the library, so that a test can be sure of which one it has.
using FakeCublasLtState = FakeCublasLt*();
inline constexpr char kFakeCublasLtState[] = "lepton_fake_cublaslt";

}  // namespace lepton::cuda_test
