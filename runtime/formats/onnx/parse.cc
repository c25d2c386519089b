#include "runtime/formats/onnx/parse.h"

#include <google/protobuf/io/coded_stream.h>

#include <limits>

#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {
namespace {

constexpr int kMaxDepth = 64;  // of messages within messages

template <typename Message>
Status ParseBounded(std::string_view bytes, std::string_view what, Message* message) {
  if (bytes.size() > std::numeric_limits<int>::max()) {
    return ResourceExhausted(std::string(what) + ": larger than 2 GiB");
  }
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                static_cast<int>(bytes.size()));
  stream.SetRecursionLimit(kMaxDepth);
  if (!message->ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage()) {
    return InvalidArgument(std::string(what) + ": truncated, or not a message of this format");
  }
  return Status::Ok();
}

Result<HostValue> DecodeSequence(const onnx_proto::SequenceProto& proto) {
  HostValue value;
  value.kind = HostValue::Kind::kSequence;
  if (proto.sequence_values_size() > 0) return InvalidArgument("a sequence of sequences");
  for (const auto& item : proto.tensor_values()) {
    HostValue element;
    element.kind = HostValue::Kind::kTensor;
    LEPTON_ASSIGN_OR_RETURN(element.tensor, DecodeTensor(item, {}, {}));
    value.items.push_back(std::move(element));
  }
  return value;
}

}  // namespace

Status ParseModel(std::string_view bytes, onnx_proto::ModelProto* model) {
  LEPTON_RETURN_IF_ERROR(ParseBounded(bytes, "model", model));
  if (!model->has_graph()) return InvalidArgument("model: has no graph");
  if (model->opset_import_size() == 0) {
    return InvalidArgument("model: does not say which operator set it uses");
  }
  if (model->functions_size() > 0) {
    return InvalidArgument("model: functions of the model's own are not supported");
  }
  return Status::Ok();
}

Result<HostValue> ParseValue(std::string_view bytes, const onnx_proto::TypeProto& type) {
  HostValue value;
  if (type.has_sequence_type()) {
    onnx_proto::SequenceProto proto;
    LEPTON_RETURN_IF_ERROR(ParseBounded(bytes, "sequence", &proto));
    return DecodeSequence(proto);
  }
  if (type.has_optional_type()) {
    onnx_proto::OptionalProto proto;
    LEPTON_RETURN_IF_ERROR(ParseBounded(bytes, "optional", &proto));
    if (proto.has_sequence_value()) return DecodeSequence(proto.sequence_value());
    if (!proto.has_tensor_value()) return value;
    value.kind = HostValue::Kind::kTensor;
    LEPTON_ASSIGN_OR_RETURN(value.tensor, DecodeTensor(proto.tensor_value(), {}, {}));
    return value;
  }
  onnx_proto::TensorProto proto;
  LEPTON_RETURN_IF_ERROR(ParseBounded(bytes, "tensor", &proto));
  value.kind = HostValue::Kind::kTensor;
  LEPTON_ASSIGN_OR_RETURN(value.tensor, DecodeTensor(proto, {}, {}));
  return value;
}

}  // namespace lepton::onnx
