// The syntax tree of a chat template, and its parser. Internal: it throws TemplateError.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

using TemplateValue = nlohmann::ordered_json;  // discarded: undefined

struct TemplateError {
  Status status;
};
[[noreturn]] void FailAt(int line, const std::string& what);

struct Expression {
  enum class Kind {
    kLiteral,
    kName,
    kList,
    kDict,
    kUnary,
    kBinary,
    kCondition,
    kAttribute,
    kIndex,
    kSlice,
    kCall,
    kFilter,
    kTest
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  std::string text;  // the name, operator, attribute, filter or test
  TemplateValue literal;
  // Operands in order; null where left out (a slice's ends, the else of a condition).
  std::vector<std::unique_ptr<Expression>> args;
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> named;  // name=value
};
using ExpressionPtr = std::unique_ptr<Expression>;

struct Statement {
  enum class Kind { kText, kOutput, kSet, kFor, kIf };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;                  // of kText
  std::vector<std::string> targets;  // of kSet (name, or name and attribute) and kFor
  ExpressionPtr value;               // output, set, the loop's list, the condition
  ExpressionPtr filter;              // of kFor: `if`
  std::vector<Statement> body;
  std::vector<Statement> otherwise;  // of kIf
};

std::vector<Statement> ParseTemplate(std::string_view source);

}  // namespace lepton::tokenizer
