// The convolution that Conv, ConvTranspose and their quantised kin share. Threads: as Builder.
#pragma once

#include "runtime/formats/onnx/windows.h"

namespace lepton::onnx {

// x [batch, channels, axes...] with weights [outputs, channels / group, kernel...].
Id Convolve(Builder& b, Id x, Id w, const Windows& windows, int64_t group);

}  // namespace lepton::onnx
