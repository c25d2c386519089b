// Points of a search space. Threads: pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/spec/job_spec.h"

namespace lepton::search {

// Trial number `trial`'s configuration under `seed`: it depends on nothing else, so adding trials
// or running them in another order changes none of them.
std::map<std::string, std::string> SamplePoint(const std::vector<spec::Dimension>& space,
                                               uint64_t seed, int trial);

}  // namespace lepton::search
