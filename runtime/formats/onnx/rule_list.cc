// The one list of rules.
#include <algorithm>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace {

const std::vector<Rule>& AllRules() {
  static const std::vector<Rule> rules = [] {
    std::vector<Rule> all;
    for (const auto list :
         {ActivationRules(), ConstantRules(), ControlRules(), ConvolutionRules(), DetectionRules(),
          ElementwiseRules(), IndexRules(), LossRules(), MatrixRules(), NormalizationRules(),
          OptimizerRules(), QuantizeRules(), RecurrentRules(), ReductionRules(), ResizeRules(),
          ShapeRules(), SignalRules()}) {
      all.insert(all.end(), list.begin(), list.end());
      const bool by_element =
          list.data() == ActivationRules().data() || list.data() == ElementwiseRules().data();
      for (auto rule = all.end() - static_cast<std::ptrdiff_t>(list.size()); rule != all.end();
           ++rule) {
        rule->by_element = by_element && !IsOneOf(rule->name, {"Hardmax", "LogSoftmax", "Softmax"});
      }
    }
    std::sort(all.begin(), all.end(), [](const Rule& a, const Rule& b) {
      return a.domain != b.domain ? a.domain < b.domain : a.name < b.name;
    });
    return all;
  }();
  return rules;
}

}  // namespace

const Rule* FindRule(std::string_view domain, std::string_view name) {
  for (const Rule& rule : AllRules()) {
    if (rule.name == name && rule.domain == domain) return &rule;
  }
  return nullptr;
}

std::vector<OperatorSupport> SupportedOperators() {
  std::vector<OperatorSupport> list;
  for (const Rule& rule : AllRules()) {
    list.push_back(
        {std::string(rule.domain), std::string(rule.name), rule.since, std::string(rule.types)});
  }
  return list;
}

}  // namespace lepton::onnx
