#include "storage/datasets/image_index.h"

#include <cstring>

#include "runtime/formats/safetensors/safetensors.h"

namespace lepton::storage {
namespace {

constexpr char kIndexFormat[] = "lepton.images";

template <typename T>
safetensors::TensorView View(const char* name, const char* dtype, const T& values) {
  return {name,
          dtype,
          {static_cast<int64_t>(values.size())},
          {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])}};
}

template <typename T>
Status ReadTensorInto(const safetensors::File& file, const char* name, const char* dtype, T* out) {
  const safetensors::TensorView* tensor = file.Find(name);
  if (tensor == nullptr || tensor->dtype != dtype || tensor->shape.size() != 1) {
    return InvalidArgument(std::string("image index: tensor \"") + name +
                           "\" is missing or of another type");
  }
  out->resize(static_cast<size_t>(tensor->shape[0]));
  if (!out->empty()) std::memcpy(out->data(), tensor->bytes.data(), tensor->bytes.size());
  return Status::Ok();
}

bool Rises(const std::vector<int64_t>& ends, int64_t last) {
  int64_t at = 0;
  for (const int64_t end : ends) {
    if (end < at) return false;
    at = end;
  }
  return at == last;
}

}  // namespace

std::string_view ImageIndex::Path(int64_t i) const {
  const int64_t begin = i == 0 ? 0 : path_ends[i - 1];
  return std::string_view(paths).substr(begin, path_ends[i] - begin);
}

std::string_view ImageIndex::File(std::string_view object, int64_t i) const {
  const int64_t begin = i == 0 ? 0 : ends[i - 1];
  return object.substr(begin, ends[i] - begin);
}

Result<std::string> ImageIndexToSafetensors(const ImageIndex& index) {
  return safetensors::Serialize(
      {View("ends", "I64", index.ends), View("labels", "I32", index.labels),
       View("widths", "I32", index.widths), View("heights", "I32", index.heights),
       View("path_ends", "I64", index.path_ends), View("paths", "U8", index.paths)},
      {{"format", kIndexFormat}});
}

Result<ImageIndex> ImageIndexFromSafetensors(std::string_view bytes, int64_t object_bytes,
                                             int64_t classes) {
  LEPTON_ASSIGN_OR_RETURN(const safetensors::File file, safetensors::Parse(bytes));
  ImageIndex index;
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "ends", "I64", &index.ends));
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "labels", "I32", &index.labels));
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "widths", "I32", &index.widths));
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "heights", "I32", &index.heights));
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "path_ends", "I64", &index.path_ends));
  LEPTON_RETURN_IF_ERROR(ReadTensorInto(file, "paths", "U8", &index.paths));
  const size_t size = index.ends.size();
  if (index.labels.size() != size || index.widths.size() != size || index.heights.size() != size ||
      index.path_ends.size() != size || !Rises(index.ends, object_bytes) ||
      !Rises(index.path_ends, static_cast<int64_t>(index.paths.size()))) {
    return InvalidArgument("image index: its parts do not agree");
  }
  for (const int32_t label : index.labels) {
    if (label < 0 || label >= classes) return InvalidArgument("image index: a label has no class");
  }
  return index;
}

}  // namespace lepton::storage
