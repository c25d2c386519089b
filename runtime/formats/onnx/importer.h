// Walks a model's graphs and applies rules; see import.h. Threads: one caller.
#pragma once

#include <unordered_map>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {

class Importer {
 public:
  Importer(const onnx_proto::ModelProto& proto, const NamedValues& given,
           const ImportOptions& options, ImportedModel* model, const Embedding* embedding)
      : proto_(proto),
        given_(given),
        options_(options),
        model_(*model),
        embedding_(embedding),
        builder_(model, embedding == nullptr ? model->graph.get() : embedding->graph, embedding,
                 &options) {}

  // All throw ImportFailure.
  void Run();
  void AddOutputs();  // to the model's own graph
  std::vector<Ref> Subgraph(const onnx_proto::GraphProto& graph, std::vector<Ref> arguments);
  Builder& builder() { return builder_; }

 private:
  using Scope = std::unordered_map<std::string, Ref>;

  void AddInitializers(const onnx_proto::GraphProto& graph, Scope& scope);
  void AddInput(const onnx_proto::ValueInfoProto& info);
  void AdoptInput(const onnx_proto::ValueInfoProto& info);
  int64_t OpenExtent(const onnx_proto::TensorShapeProto_Dimension& dim, int axis);
  Ref InputTensor(const std::string& name, const onnx_proto::TypeProto& type,
                  const HostTensor* value);
  void Apply(const onnx_proto::NodeProto& node);
  void CountNode();  // fails at the limit
  const Ref& Lookup(const std::string& name) const;
  int64_t Version(const std::string& domain) const;

  const onnx_proto::ModelProto& proto_;
  const NamedValues& given_;
  const ImportOptions& options_;
  ImportedModel& model_;
  const Embedding* embedding_;                 // null: the model's own graph
  std::map<std::string, int64_t> open_names_;  // of the model's symbolic extents
  Builder builder_;
  std::vector<Scope> scopes_;
  int64_t applied_ = 0;
};

}  // namespace lepton::onnx
