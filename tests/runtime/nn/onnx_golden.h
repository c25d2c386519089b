// A model that PyTorch exported, with inputs and its answers to them: the folders of
// tests/golden/onnx. Threads: plain values.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/model_file.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/nn/training_program.h"

namespace lepton::nn {

struct Golden {
  spec::ModelSpec model;
  std::map<std::string, onnx::HostTensor> weights;
  onnx::NamedValues inputs;
  std::vector<float> logits;
  bool batch_second = false;
};

inline Golden ReadGolden(const std::filesystem::path& folder) {
  Golden golden;
  golden.batch_second = folder.filename() == "library_columns";
  const std::string bytes = *ReadFile(folder / "model.onnx");
  auto apart = onnx::TakeApart(bytes, folder);
  EXPECT_TRUE(apart.ok()) << apart.status().ToString();
  golden.model.arch = "onnx";
  golden.model.onnx_graph = std::make_shared<std::string>(apart->graph);
  for (auto& [weight, tensor] : apart->weights) golden.weights[weight] = std::move(tensor);
  onnx_proto::ModelProto proto;
  EXPECT_TRUE(onnx::ParseModel(bytes, &proto).ok());
  for (int i = 0; i < proto.graph().input_size(); ++i) {
    const auto data = ReadFile(folder / "test_data_set_0" / ("input_" + std::to_string(i) + ".pb"));
    const auto& info = proto.graph().input(i);
    golden.inputs[info.name()] = *onnx::ParseValue(*data, info.type());
  }
  const auto data = ReadFile(folder / "test_data_set_0/output_0.pb");
  const auto y = *onnx::ParseValue(*data, proto.graph().output(0).type());
  for (const double number : onnx::AsDoubles(y.tensor)) {
    golden.logits.push_back(static_cast<float>(number));
  }
  return golden;
}

inline void CopyTo(const Golden& golden, const std::vector<ParameterView>& parameters,
                   std::span<float> weights) {
  EXPECT_EQ(parameters.size(), golden.weights.size());
  for (const ParameterView& view : parameters) {
    const onnx::HostTensor& tensor = golden.weights.at(view.name);
    std::memcpy(weights.data() + view.offset, tensor.data.data(), tensor.type.bytes());
  }
}

}  // namespace lepton::nn
