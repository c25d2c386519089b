// Walks a model's graphs and applies rules; see import.h. Threads: one caller.
#pragma once

#include <unordered_map>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {

class Importer {
 public:
  Importer(const onnx_proto::ModelProto& proto, const NamedValues& given,
           const ImportOptions& options, ImportedModel* model)
      : proto_(proto),
        given_(given),
        options_(options),
        model_(*model),
        builder_(model, &given, &options) {}

  // Both throw ImportFailure.
  void Run();
  std::vector<Ref> Subgraph(const onnx_proto::GraphProto& graph, std::vector<Ref> arguments);
  Builder& builder() { return builder_; }

 private:
  using Scope = std::unordered_map<std::string, Ref>;

  void AddInitializers(const onnx_proto::GraphProto& graph, Scope& scope);
  void AddInput(const onnx_proto::ValueInfoProto& info);
  Ref InputTensor(const std::string& name, const onnx_proto::TypeProto& type,
                  const HostTensor* value);
  void Apply(const onnx_proto::NodeProto& node);
  const Ref& Lookup(const std::string& name) const;
  int64_t Version(const std::string& domain) const;

  const onnx_proto::ModelProto& proto_;
  const NamedValues& given_;
  const ImportOptions& options_;
  ImportedModel& model_;
  Builder builder_;
  std::vector<Scope> scopes_;
  int64_t applied_ = 0;
};

}  // namespace lepton::onnx
