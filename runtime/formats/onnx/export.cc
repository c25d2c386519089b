#include "runtime/formats/onnx/export.h"

#include "runtime/formats/onnx/emitter.h"

namespace lepton::onnx {

Result<ExportedModel> Export(const ExportRequest& request) {
  ExportedModel exported;
  onnx_proto::ModelProto model;
  model.set_ir_version(8);
  model.set_producer_name("lepton");
  model.add_opset_import()->set_version(kExportedOperatorSet);
  model.mutable_opset_import(0)->set_domain("");
  model.mutable_graph()->set_name("model");
  for (const auto& [key, value] : request.metadata) {
    auto* entry = model.add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
  try {
    Emitter(request, model.mutable_graph(), &exported.data).Run();
  } catch (const ImportFailure& failure) {
    return failure.status.WithContext("ONNX export");
  }
  if (!model.SerializeToString(&exported.model)) {
    return ResourceExhausted("ONNX export: the model is larger than 2 GiB");
  }
  return exported;
}

}  // namespace lepton::onnx
