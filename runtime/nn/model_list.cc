#include "runtime/nn/model_list.h"

#include <algorithm>

#include "runtime/nn/mlp.h"

namespace lepton::nn {
namespace {

struct Architecture {
  std::string_view name;
  Result<graph::ValueId> (*build)(ModelBuilder&, const Signature&, const spec::ModelSpec&,
                                  std::span<const graph::ValueId> inputs);
};

constexpr Architecture kArchitectures[] = {
    {"mlp", &BuildMlp},
};

}  // namespace

Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const spec::ModelSpec& model,
                                  std::span<const graph::ValueId> inputs) {
  if (signature.outputs < 1) return InvalidArgument("model: must have at least one output");
  for (const InputSpec& input : signature.inputs) {
    const auto& extents = input.type.shape.extents();
    if (std::find(extents.begin(), extents.end(), 0) != extents.end()) {
      return InvalidArgument("model: input " + input.name + " is " + input.type.ToString() +
                             "; must have at least one feature");
    }
  }
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == model.arch)
      return architecture.build(builder, signature, model, inputs);
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return InvalidArgument("model.arch: '" + model.arch + "' is unknown: must be one of " + known);
}

}  // namespace lepton::nn
