#include "runtime/nn/model_list.h"

#include "runtime/nn/mlp.h"

namespace lepton::nn {
namespace {

struct Architecture {
  std::string_view name;
  Result<graph::ValueId> (*build)(ModelBuilder&, const Signature&, const spec::ModelSpec&,
                                  graph::ValueId);
};

constexpr Architecture kArchitectures[] = {
    {"mlp", &BuildMlp},
};

}  // namespace

Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const spec::ModelSpec& model, graph::ValueId x) {
  if (signature.features < 1 || signature.outputs < 1) {
    return InvalidArgument("model: must have at least one feature and one output");
  }
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == model.arch) return architecture.build(builder, signature, model, x);
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return InvalidArgument("model.arch: '" + model.arch + "' is unknown: must be one of " + known);
}

}  // namespace lepton::nn
