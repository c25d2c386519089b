// Bytes to protobuf messages and tensors, within limits: what a file claims is never believed
// before it is checked. Threads: pure functions, but for reading external data files.
#pragma once

#include <filesystem>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/formats/onnx/external_data.h"
#include "runtime/formats/onnx/host_tensor.h"

namespace lepton::onnx_proto {
class ModelProto;
class TensorProto;
class SequenceProto;
class OptionalProto;
class TypeProto;
}  // namespace lepton::onnx_proto

namespace lepton::onnx {

struct Limits {
  int64_t value_bytes = int64_t{1} << 32;  // one tensor
  int64_t total_bytes = int64_t{1} << 34;  // all constants, or what runs need
  int64_t nodes = 1 << 17;                 // after loops are unrolled
};

// kInvalidArgument: not an ONNX model, or nested too deeply.
Status ParseModel(std::string_view bytes, onnx_proto::ModelProto* model);

// kInvalidArgument for a type code that is unknown or not a number's.
Result<DType> DTypeFromCode(int32_t code);

// The tensor's values, from the message or from a file where `external` says (never outside of it).
// Every size is checked against the data that is there before memory is taken.
Result<HostTensor> DecodeTensor(const onnx_proto::TensorProto& proto, const ExternalData& external,
                                const Limits& limits);

// A value of the given type, from the bytes of a test case's data file.
Result<HostValue> ParseValue(std::string_view bytes, const onnx_proto::TypeProto& type);

}  // namespace lepton::onnx
