// What docs say of single operators: the column "types" of docs/onnx-ops.md, where each takes what
// it lists and computes in each floating type about what it does in f64; and "gradient" of
// docs/onnx.md.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "runtime/base/file.h"
#include "tests/runtime/onnx/typed_node.h"

namespace lepton::onnx {
namespace {

std::set<std::string> TypesOf(const std::string& column) {
  std::set<std::string> types;
  const auto add = [&](const std::string& begins) {
    for (const auto& [name, code] : TypeCodes()) {
      if (name.starts_with(begins) && name != "bool") types.insert(name);
    }
  };
  if (column == "all" || column == "all but text") types.insert("bool");
  if (column.starts_with("all")) add("");
  if (column == "integers") {
    add("i");
    add("u");
  }
  std::istringstream stream(column);
  for (std::string part; std::getline(stream, part, ',');) {
    part.erase(0, part.find_first_not_of(' '));
    if (TypeCodes().contains(part)) types.insert(part);
  }
  return types;
}

TEST(OnnxTypes, AreThoseThatTheTableLists) {
  int combinations = 0;
  for (const OperatorSupport& support : SupportedOperators()) {
    if (support.types == "attributes") continue;  // it looks at no number
    const Asked* const asked = FindAsked(support.name);
    ASSERT_NE(asked, nullptr) << "no way to ask " << support.name;
    std::vector<double> exact;
    const std::set<std::string> types = TypesOf(support.types);
    EXPECT_FALSE(types.empty()) << support.name << ": " << support.types;
    if (types.contains("f64")) {
      auto result = TypedNode(support, *asked, "f64").Run();
      if (result.ok()) exact = AsDoubles(*result);
    }
    for (const std::string& type : types) {
      auto result = TypedNode(support, *asked, type).Run();
      ++combinations;
      ASSERT_TRUE(result.ok()) << support.name << " of " << type << ": "
                               << result.status().ToString();
      EXPECT_GT(result->type.shape.elements(), 0) << support.name << " of " << type;
      if (exact.empty() || !IsFloating(*DTypeFromCode(TypeCodes().at(type)))) continue;
      const std::vector<double> got = AsDoubles(*result);
      ASSERT_EQ(got.size(), exact.size()) << support.name << " of " << type;
      for (size_t i = 0; i < got.size(); ++i) {
        if (std::isnan(exact[i])) continue;
        EXPECT_TRUE(got[i] == exact[i] ||
                    std::abs(got[i] - exact[i]) < 0.03 + 0.02 * std::abs(exact[i]))
            << support.name << " of " << type << ": " << got[i] << " and not " << exact[i];
      }
    }
  }
  EXPECT_GT(combinations, 1200);
}

// Rows of "what models from PyTorch are made of": operators | what they become | gradient.
TEST(OnnxGradients, AreThoseThatTheTableLists) {
  std::map<std::string, OperatorSupport> known;
  for (const OperatorSupport& support : SupportedOperators()) {
    if (support.domain.empty()) known[support.name] = support;
  }
  std::istringstream page(ReadFile(LEPTON_SOURCE_DIR "/docs/onnx.md").value());
  std::map<bool, int> counts;
  for (std::string line; std::getline(page, line);) {
    std::istringstream cells(line);
    std::string start, names, becomes, gradient;
    std::getline(cells, start, '|');
    std::getline(cells, names, '|');
    std::getline(cells, becomes, '|');
    std::getline(cells, gradient, '|');
    std::erase(gradient, ' ');
    if (gradient.empty() || gradient == "gradient" || gradient.starts_with("-")) continue;
    std::replace_if(
        names.begin(), names.end(), [](char c) { return std::isalpha(c) == 0; }, ' ');
    std::istringstream words(names);
    for (std::string word; words >> word;) {
      const auto support = known.find(word);
      if (support == known.end()) continue;
      const Asked* const asked = FindAsked(word);
      ASSERT_NE(asked, nullptr) << word;
      const Status status = TypedNode(support->second, *asked, "f32").Differentiate();
      EXPECT_EQ(status.ok(), gradient != "no") << word << ": " << status.ToString();
      ++counts[status.ok()];
    }
  }
  EXPECT_GT(counts[true], 50);
  EXPECT_EQ(counts[false], 4);
}

}  // namespace
}  // namespace lepton::onnx
