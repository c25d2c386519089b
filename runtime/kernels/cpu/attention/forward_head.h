// One head's forward pass, of rows as they lie (forward.cc), for kernels that compute others
// another way. Threads: a head is one thread's.
#pragma once

#include "runtime/kernels/cpu/attention/attention_shape.h"

namespace lepton::kernels::attention {

// Writes the head's columns of output 0 for the image, and the logarithms of its sums if there is
// an output 1.
void ForwardOneHead(const graph::KernelContext& context, const AttentionPlaces& places,
                    const AttentionShape& shape, int64_t image, int64_t head);

}  // namespace lepton::kernels::attention
