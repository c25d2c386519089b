// libFuzzer's entry: LEPTON_FUZZ_TARGET=name lepton_fuzz CORPUS... ; without it, the list of
// targets.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzz_target.h"

namespace {

const lepton::fuzz::FuzzTarget* chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("LEPTON_FUZZ_TARGET");
  chosen = name == nullptr ? nullptr : lepton::fuzz::FindFuzzTarget(name);
  if (chosen != nullptr) return 0;
  for (const auto& target : lepton::fuzz::FuzzTargets()) {
    std::printf("%.*s %zu\n", static_cast<int>(target.name.size()), target.name.data(),
                target.max_bytes);
  }
  std::exit(name == nullptr ? 0 : 2);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
