// Whether a model can be trained on data of which only some is known yet: what a task finds out
// when it begins, for whoever takes jobs on. Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/base/status.h"
#include "runtime/spec/model_spec.h"

namespace lepton::worker {

// 0: known only once the data is read.
struct KnownData {
  std::string kind;  // features | images | tokens
  int64_t features = 0;
  int64_t channels = 0, height = 0, width = 0;
};

// kInvalidArgument names the field: the architecture does not take such data, or its sizes do not
// go together. What only the data can say is taken to fit.
Status CheckModel(const spec::ModelSpec& model, const KnownData& data);

}  // namespace lepton::worker
