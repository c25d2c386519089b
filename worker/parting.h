// How a group of an elastic gang ended, where its members had agreed on that behind a step.
// Threads: a value.
#pragma once

#include <vector>

namespace lepton::worker {

struct Parting {
  bool planned = false;   // since ranks leave or join; else it broke
  std::vector<int> left;  // ranks that go, and have handed over what they held (parallel.zero)
  bool saved = false;     // all go, behind a checkpoint that they wrote together
};

}  // namespace lepton::worker
