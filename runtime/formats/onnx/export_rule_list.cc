// The one list of exporters.
#include <algorithm>

#include "runtime/formats/onnx/emitter.h"

namespace lepton::onnx {
namespace {

const std::vector<ExportRule>& AllExports() {
  static const std::vector<ExportRule> rules = [] {
    std::vector<ExportRule> all;
    for (const auto list : {ElementwiseExports(), ShapeExports(), MatrixExports(), ImageExports(),
                            TransformerExports(), UnexportedOps()}) {
      all.insert(all.end(), list.begin(), list.end());
    }
    return all;
  }();
  return rules;
}

constexpr std::string_view kLoss = "a loss: models leave with their logits";
constexpr std::string_view kGradient = "made for gradients only";
constexpr std::string_view kCached = "between tokens of a text: models leave for whole texts";
constexpr std::string_view kDivided = "between ranks: models leave undivided";

constexpr ExportRule kUnexported[] = {
    {"batch_norm_apply", nullptr, kGradient},
    {"binary_cross_entropy", nullptr, kLoss},
    {"cached_attention", nullptr, kCached},
    {"cross_entropy", nullptr, kLoss},
    {"distillation", nullptr, kLoss},
    {"linear_cross_entropy", nullptr, kLoss},
    {"mse", nullptr, kLoss},
    {"expand", nullptr, kGradient},
    {"rope_angles", nullptr, kCached},
    {"sum_rows", nullptr, kGradient},
    {"sum_to", nullptr, kGradient},
    {"tensor_copy", nullptr, kDivided},
    {"tensor_sum", nullptr, kDivided},
};

}  // namespace

std::span<const ExportRule> UnexportedOps() {
  return kUnexported;
}

const ExportRule* FindExport(std::string_view op) {
  const auto& all = AllExports();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const ExportRule& rule) { return rule.op == op; });
  return found == all.end() ? nullptr : &*found;
}

std::vector<ExportSupport> ExportedOps() {
  std::vector<ExportSupport> list;
  for (const ExportRule& rule : AllExports()) list.push_back({rule.op, rule.reason});
  return list;
}

}  // namespace lepton::onnx
