#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/parse.h"

namespace lepton::onnx {
namespace {

namespace fs = std::filesystem;

Result<TensorType> TypeOf(const onnx_proto::TensorProto& proto, const Limits& limits) {
  TensorType type;
  LEPTON_ASSIGN_OR_RETURN(type.dtype, DTypeFromCode(proto.data_type()));
  int64_t bytes = static_cast<int64_t>(DTypeSize(type.dtype));
  constexpr int kMaxRank = 32;
  if (proto.dims_size() > kMaxRank) return InvalidArgument("rank above 32");
  for (const int64_t extent : proto.dims()) {
    if (extent < 0) return InvalidArgument("a negative extent");
    if (extent > 0 && __builtin_mul_overflow(bytes, extent, &bytes)) {
      return ResourceExhausted("a shape beyond 64 bits");
    }
  }
  if (bytes > limits.value_bytes) {
    return ResourceExhausted("claims " + std::to_string(bytes) + " bytes; at most " +
                             std::to_string(limits.value_bytes));
  }
  type.shape = Shape({proto.dims().begin(), proto.dims().end()});
  return type;
}

Status Claims(int64_t has, int64_t needs, std::string_view of) {
  if (has == needs) return Status::Ok();
  return InvalidArgument("has " + std::to_string(has) + " " + std::string(of) +
                         " of data; its shape needs " + std::to_string(needs));
}

template <typename To, typename List>
Result<HostTensor> FromList(const TensorType& type, const List& list) {
  LEPTON_RETURN_IF_ERROR(Claims(list.size(), type.shape.elements(), "elements"));
  HostTensor tensor(type);
  for (int i = 0; i < list.size(); ++i) tensor.data.as<To>()[i] = static_cast<To>(list[i]);
  return tensor;
}

Result<HostTensor> FromFields(const onnx_proto::TensorProto& proto, const TensorType& type) {
  switch (type.dtype) {
    case DType::kF32:
      return FromList<float>(type, proto.float_data());
    case DType::kF64:
      return FromList<double>(type, proto.double_data());
    case DType::kI64:
      return FromList<int64_t>(type, proto.int64_data());
    case DType::kU64:
      return FromList<uint64_t>(type, proto.uint64_data());
    case DType::kU32:
      return FromList<uint32_t>(type, proto.uint64_data());
    case DType::kI32:
      return FromList<int32_t>(type, proto.int32_data());
    case DType::kI16:
      return FromList<int16_t>(type, proto.int32_data());
    case DType::kI8:
      return FromList<int8_t>(type, proto.int32_data());
    case DType::kU8:
      return FromList<uint8_t>(type, proto.int32_data());
    case DType::kBool:
      return FromList<bool>(type, proto.int32_data());
    case DType::kU16:
    case DType::kF16:
    case DType::kBF16:
      return FromList<uint16_t>(type, proto.int32_data());
  }
  return Internal("a type without data field");
}

Result<int64_t> Number(const std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    return InvalidArgument("external data: '" + text + "' is not a number of bytes");
  }
  return number;
}

bool IsWithin(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

// Where an external file really is; links out of the folder are refused like "..".
Result<fs::path> Confine(const std::string& location, const ExternalData& external) {
  const fs::path& folder = external.folder;
  const fs::path relative(location);
  const Status outside =
      PermissionDenied("external data: '" + location + "' is outside of the model's folder");
  if (folder.empty()) return FailedPrecondition("external data: the model has no folder");
  if (location.empty() || relative.is_absolute()) return outside;
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) return NotFound("external data: no folder " + folder.string());
  const fs::path file = fs::weakly_canonical(root / relative, error);
  if (error) return InvalidArgument("external data: " + error.message());
  if (!IsWithin(file, root)) return outside;
  if (!external.but_not.empty()) {
    const fs::path closed = fs::canonical(external.but_not, error);
    // A folder below that one that holds the model was opened on purpose.
    if (!error && IsWithin(file, closed) && !IsWithin(root, closed)) {
      return PermissionDenied("external data: '" + location + "' is not to be read");
    }
  }
  if (!fs::is_regular_file(file, error)) {
    return NotFound("external data: no file " + location + " in the model's folder");
  }
  return file;
}

Result<HostTensor> FromFile(const onnx_proto::TensorProto& proto, const TensorType& type,
                            const ExternalData& external) {
  std::string location;
  int64_t offset = 0;
  int64_t length = static_cast<int64_t>(type.bytes());
  for (const auto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") {
      LEPTON_ASSIGN_OR_RETURN(offset, Number(entry.value()));
    }
    if (entry.key() == "length") {
      LEPTON_ASSIGN_OR_RETURN(length, Number(entry.value()));
    }
  }
  LEPTON_RETURN_IF_ERROR(Claims(length, static_cast<int64_t>(type.bytes()), "bytes"));
  LEPTON_ASSIGN_OR_RETURN(const fs::path file, Confine(location, external));
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(file, error));
  if (error || offset > size || length > size - offset) {
    return DataLoss("external data: " + location + " is shorter than the model says");
  }
  HostTensor tensor(type);
  std::ifstream stream(file, std::ios::binary);
  stream.seekg(offset);
  if (length > 0) stream.read(tensor.data.as<char>(), length);
  if (!stream) return DataLoss("external data: cannot read " + location);
  return tensor;
}

Result<HostTensor> Decode(const onnx_proto::TensorProto& proto, const ExternalData& external,
                          const Limits& limits) {
  LEPTON_ASSIGN_OR_RETURN(const TensorType type, TypeOf(proto, limits));
  if (proto.data_location() == 1) return FromFile(proto, type, external);
  if (!proto.has_raw_data()) return FromFields(proto, type);
  const std::string& raw = proto.raw_data();
  LEPTON_RETURN_IF_ERROR(
      Claims(static_cast<int64_t>(raw.size()), static_cast<int64_t>(type.bytes()), "bytes"));
  return HostTensor(type, raw.data());
}

}  // namespace

Result<DType> DTypeFromCode(int32_t code) {
  switch (code) {
    case 1:
      return DType::kF32;
    case 2:
      return DType::kU8;
    case 3:
      return DType::kI8;
    case 4:
      return DType::kU16;
    case 5:
      return DType::kI16;
    case 6:
      return DType::kI32;
    case 7:
      return DType::kI64;
    case 8:
      return InvalidArgument("text tensors are not supported");
    case 9:
      return DType::kBool;
    case 10:
      return DType::kF16;
    case 11:
      return DType::kF64;
    case 12:
      return DType::kU32;
    case 13:
      return DType::kU64;
    case 16:
      return DType::kBF16;
    default:
      return InvalidArgument("element type " + std::to_string(code) + " is not supported");
  }
}

Result<HostTensor> DecodeTensor(const onnx_proto::TensorProto& proto, const ExternalData& external,
                                const Limits& limits) {
  auto tensor = Decode(proto, external, limits);
  if (!tensor.ok()) return tensor.status().WithContext("tensor '" + proto.name() + "'");
  // Any byte but 0 means true; kernels rely on 0 and 1.
  if (tensor->type.dtype == DType::kBool) {
    for (uint8_t& byte : std::span(tensor->data.as<uint8_t>(), tensor->type.bytes())) {
      byte = byte != 0;
    }
  }
  return tensor;
}

}  // namespace lepton::onnx
