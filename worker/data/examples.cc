#include "worker/data/examples.h"

#include <algorithm>

#include "worker/data/permutation.h"

namespace lepton::worker {

void Examples::FillLabels(std::span<const int64_t> examples, BatchBuffer& out) const {
  // Binary labels have both: the loss wants the values.
  for (const int64_t example : examples) {
    if (!values_.empty()) {
      out.values.push_back(values_[example]);
    } else if (!classes_.empty()) {
      out.classes.push_back(classes_[example]);
    }
  }
}

Status TableExamples::Fill(uint64_t, std::span<const int64_t> examples, BatchBuffer& out) const {
  out.Resize(static_cast<int64_t>(examples.size()));
  float* x = out.Floats("x");
  if (x == nullptr) return InvalidArgument("the model takes no rows of features");
  for (const int64_t example : examples) {
    x = std::copy_n(&x_[example * features_], features_, x);
  }
  FillLabels(examples, out);
  return Status::Ok();
}

uint64_t ExampleDraw(uint64_t seed, uint64_t epoch, uint64_t example, uint64_t purpose) {
  return MixBits(MixBits(MixBits(MixBits(seed) ^ epoch) + example) ^ purpose);
}

}  // namespace lepton::worker
