// Where the pixels of a convolution go: f32, or, when a cast to bf16 follows in the same step,
// bf16, or both when somebody else reads the f32 ones, too. Threads: plain values.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

struct PixelTarget {
  float* wide = nullptr;
  uint16_t* narrow = nullptr;

  // The same, `elements` further.
  PixelTarget operator+(int64_t elements) const {
    return {wide == nullptr ? nullptr : wide + elements,
            narrow == nullptr ? nullptr : narrow + elements};
  }
};

// What a step makes of a convolution's output.
class PixelFollower {
 public:
  // Nothing follows, or one cast to bf16.
  static bool CanRun(const graph::KernelRequest& request) {
    if (request.followers.empty()) return true;
    const graph::Node& node = *request.followers.front();
    return request.followers.size() == 1 && node.op->name() == "cast" &&
           request.types[node.outputs[0]].dtype == DType::kBF16;
  }

  explicit PixelFollower(const graph::KernelRequest& request) {
    if (request.followers.empty()) return;
    narrow_ = request.followers.front()->outputs[0];
    wide_ = request.kept[request.node->outputs[0]];
  }
  PixelTarget Target(const graph::KernelContext& context) const {
    PixelTarget target;
    if (wide_) target.wide = context.output(0).as<float>();
    if (narrow_ != graph::kNoValue) target.narrow = context.value(narrow_).as<uint16_t>();
    return target;
  }

 private:
  graph::ValueId narrow_ = graph::kNoValue;
  bool wide_ = true;
};

}  // namespace lepton::kernels::conv
