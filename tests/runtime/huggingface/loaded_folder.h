// A model folder of the goldens in memory, for tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/mapped_file.h"
#include "runtime/formats/huggingface/folder.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/weights.h"

namespace lepton::huggingface {

inline std::filesystem::path Golden(const std::string& name) {
  return std::filesystem::path(LEPTON_GOLDENS) / name;
}

struct LoadedFolder {
  // Fails the test and stays empty when the folder cannot be read.
  explicit LoadedFolder(const std::filesystem::path& path) {
    const auto read = ReadFolder(OpenFilesOf(path).value());
    EXPECT_TRUE(read.ok()) << read.status().ToString();
    if (!read.ok()) return;
    folder = *read;
    for (const Shard& shard : folder.shards) {
      files.push_back(MappedFile::Open(path / shard.file).value());
      for (const safetensors::TensorPlace& place : shard.tensors) {
        const DType dtype = place.dtype == "F32"   ? DType::kF32
                            : place.dtype == "F16" ? DType::kF16
                                                   : DType::kBF16;
        tensors[place.name] = {dtype, place.shape, files.back().bytes().data() + place.begin};
      }
    }
  }
  Folder folder;
  std::vector<MappedFile> files;
  nn::SourceTensors tensors;  // into `files`
};

// The inputs and answers that lie beside a golden model.
struct Expected {
  explicit Expected(const std::filesystem::path& path)
      : file(MappedFile::Open(path / "expected.safetensors").value()),
        tensors(safetensors::Parse(file.bytes()).value()) {
    if (const auto* kept = tensors.Find("mask")) {
      for (const int32_t m : Ints(*kept)) mask.push_back(m != 0 ? 0.0f : -1e9f);
    }
  }

  static std::vector<int32_t> Ints(const safetensors::TensorView& view) {
    std::vector<int32_t> values(view.bytes.size() / sizeof(int32_t));
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    return values;
  }
  bool Has(const std::string& name) const { return tensors.Find(name) != nullptr; }
  std::vector<int64_t> ShapeOf(const std::string& name) const { return tensors.Find(name)->shape; }
  std::vector<float> Floats(const std::string& name) const {
    const std::string_view bytes = tensors.Find(name)->bytes;
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  // As the model takes them; `rows` above 0: the first so many.
  nn::Batch batch(const nn::Signature& signature, int64_t rows = 0) {
    nn::Batch batch;
    for (const nn::InputSpec& input : signature.inputs) {
      const auto* view = tensors.Find(input.name);
      std::vector<int64_t> extents = view->shape;
      if (rows > 0) extents[0] = rows;
      // A mapped file is aligned, and nobody writes to a batch.
      void* data = const_cast<char*>(view->bytes.data());
      if (input.name == "mask") data = mask.data();
      batch.inputs.push_back({data, {input.type.dtype, Shape(extents)}});
    }
    return batch;
  }

  // What such inputs and answers say of the data.
  nn::DataShape shape(const std::string& answer) const {
    nn::DataShape shape;
    const std::vector<int64_t> extents = ShapeOf(answer);
    shape.outputs = extents.back();
    if (Has("pixels")) {
      const std::vector<int64_t> pixels = ShapeOf("pixels");
      shape.kind = nn::DataShape::Kind::kImages;
      shape.channels = pixels[1];
      shape.height = pixels[2];
      shape.width = pixels[3];
      return shape;
    }
    shape.kind = nn::DataShape::Kind::kTokens;
    shape.per_token = extents.size() == 3;
    shape.context = ShapeOf("tokens")[1];
    return shape;
  }

  MappedFile file;
  safetensors::File tensors;
  std::vector<float> mask;
};

}  // namespace lepton::huggingface
