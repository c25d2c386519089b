#include "runtime/formats/tokenizer/chat_template.h"

#include <algorithm>
#include <map>

#include "runtime/base/utf8.h"
#include "runtime/formats/tokenizer/template_functions.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

using Kind = Expression::Kind;

constexpr size_t kMaxSourceBytes = size_t{1} << 20;
constexpr size_t kMaxInputBytes = size_t{64} << 20;
constexpr size_t kMaxOutputBytes = size_t{64} << 20;
constexpr int kMaxSteps = 2'000'000;
constexpr int kMaxValueDepth = 64;

[[noreturn]] void Exhausted(int line, const std::string& what) {
  throw TemplateError{ResourceExhausted("line " + std::to_string(line) + ": " + what)};
}

class Interpreter {
 public:
  explicit Interpreter(TemplateValue variables, size_t input_bytes)
      : budget_(16 * input_bytes + (size_t{64} << 20)) {
    scopes_.emplace_back();
    for (auto item = variables.begin(); item != variables.end(); ++item) {
      scopes_[0][item.key()] = std::move(*item);
    }
  }

  std::string Run(const std::vector<Statement>& body) {
    Body(body);
    return std::move(out_);
  }

 private:
  using Scope = std::map<std::string, TemplateValue, std::less<>>;

  void Step(int line) {
    if (++steps_ > kMaxSteps) Exhausted(line, "the template takes too many steps");
  }

  // What a value costs, against a budget that nothing gives back; also bounds how deep it nests.
  size_t Size(const TemplateValue& value, int line, int depth = 0) {
    if (depth > kMaxValueDepth) Exhausted(line, "a value nests more than 64 deep");
    size_t size = sizeof(TemplateValue);
    if (value.is_string()) size += value.get_ref<const std::string&>().size();
    if (value.is_structured()) {
      for (const auto& item : value) size += 32 + Size(item, line, depth + 1);
    }
    return size;
  }
  TemplateValue Charge(TemplateValue value, int line) {
    Spend(Size(value, line), line);
    return value;
  }
  void Spend(size_t size, int line) {
    if (size > budget_) Exhausted(line, "the template makes too much data");
    budget_ -= size;
  }

  TemplateValue* Find(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      auto found = scope->find(name);
      if (found != scope->end()) return &found->second;
    }
    return nullptr;
  }

  void Body(const std::vector<Statement>& body) {
    for (const Statement& statement : body) {
      Step(statement.line);
      switch (statement.kind) {
        case Statement::Kind::kText:
          Write(statement.text, statement.line);
          break;
        case Statement::Kind::kOutput:
          Write(ToText(Eval(*statement.value), statement.line), statement.line);
          break;
        case Statement::Kind::kSet:
          Set(statement);
          break;
        case Statement::Kind::kFor:
          For(statement);
          break;
        case Statement::Kind::kIf:
          Body(Holds(*statement.value) ? statement.body : statement.otherwise);
          break;
      }
    }
  }

  void Write(const std::string& text, int line) {
    if (out_.size() + text.size() > kMaxOutputBytes) Exhausted(line, "the output is over 64 MiB");
    out_ += text;
  }

  void Set(const Statement& statement) {
    TemplateValue value = Charge(Eval(*statement.value), statement.line);
    if (statement.targets.size() == 1) {
      scopes_.back()[statement.targets[0]] = std::move(value);
      return;
    }
    TemplateValue* owner = Find(statement.targets[0]);
    if (!owner || !owner->is_object()) {
      FailAt(statement.line, "'" + statement.targets[0] + "' is not a namespace");
    }
    (*owner)[statement.targets[1]] = std::move(value);
    Size(*owner, statement.line);
  }

  void Bind(const Statement& statement, TemplateValue item, Scope& scope) {
    if (statement.targets.size() == 1) {
      scope[statement.targets[0]] = std::move(item);
      return;
    }
    if (!item.is_array() || item.size() != statement.targets.size()) {
      FailAt(statement.line, "the item does not unpack into the loop's names");
    }
    for (size_t i = 0; i < statement.targets.size(); ++i) {
      scope[statement.targets[i]] = std::move(item[i]);
    }
  }

  void For(const Statement& statement) {
    TemplateValue list = Charge(Eval(*statement.value), statement.line);
    std::vector<TemplateValue> items;
    if (list.is_object()) {
      for (auto item = list.begin(); item != list.end(); ++item) items.emplace_back(item.key());
    } else if (list.is_array()) {
      for (auto& item : list) items.push_back(std::move(item));
    } else if (!list.is_discarded()) {  // of what is undefined there are no rounds
      FailAt(statement.line, "only lists and dicts can be walked");
    }
    if (statement.filter) Filter(statement, items);
    scopes_.emplace_back();
    for (size_t i = 0; i < items.size(); ++i) {
      Step(statement.line);
      Scope scope;
      Bind(statement, std::move(items[i]), scope);
      scope["loop"] = {{"index", i + 1},
                       {"index0", i},
                       {"revindex", items.size() - i},
                       {"revindex0", items.size() - i - 1},
                       {"first", i == 0},
                       {"last", i + 1 == items.size()},
                       {"length", items.size()}};
      scopes_.back() = std::move(scope);
      Body(statement.body);
    }
    scopes_.pop_back();
  }

  void Filter(const Statement& statement, std::vector<TemplateValue>& items) {
    std::vector<TemplateValue> kept;
    scopes_.emplace_back();
    for (TemplateValue& item : items) {
      Step(statement.line);
      Bind(statement, item, scopes_.back());
      if (Holds(*statement.filter)) kept.push_back(std::move(item));
    }
    scopes_.pop_back();
    items = std::move(kept);
  }

  // The value where it lies, so that walking down into it copies nothing; null when it must be
  // made, or is not there.
  const TemplateValue* Place(const Expression& e) {
    if (e.kind == Kind::kName) return Find(e.text);
    if (e.kind != Kind::kAttribute && e.kind != Kind::kIndex) return nullptr;
    const TemplateValue* owner = Place(*e.args[0]);
    if (!owner) return nullptr;
    if (e.kind == Kind::kAttribute) return Member(*owner, e.text);
    return At(*owner, Eval(*e.args[1]), e.line);
  }
  static const TemplateValue* Member(const TemplateValue& owner, const std::string& name) {
    if (!owner.is_object()) return nullptr;
    auto found = owner.find(name);
    return found == owner.end() ? nullptr : &*found;
  }
  static const TemplateValue* At(const TemplateValue& owner, const TemplateValue& key, int line) {
    if (key.is_string()) return Member(owner, key.get_ref<const std::string&>());
    if (!key.is_number_integer()) FailAt(line, "an index must be a string or a whole number");
    if (!owner.is_array()) return nullptr;
    auto index = key.get<int64_t>(), size = static_cast<int64_t>(owner.size());
    if (index < 0) index += size;
    return index < 0 || index >= size ? nullptr : &owner[static_cast<size_t>(index)];
  }

  TemplateValue Eval(const Expression& e) {
    Step(e.line);
    switch (e.kind) {
      case Kind::kLiteral:
        return e.literal;
      case Kind::kName:
      case Kind::kAttribute:
      case Kind::kIndex:
        return Lookup(e);
      case Kind::kList: {
        TemplateValue list = TemplateValue::array();
        for (const auto& item : e.args) list.push_back(Eval(*item));
        return Charge(std::move(list), e.line);
      }
      case Kind::kDict:
        return Dict(e);
      case Kind::kUnary:
        return Unary(e);
      case Kind::kBinary:
        return Charge(Binary(e), e.line);
      case Kind::kCondition:
        if (Holds(*e.args[0])) return Eval(*e.args[1]);
        return e.args[2] ? Eval(*e.args[2]) : Undefined();
      case Kind::kSlice:
        return Charge(Slice(Eval(*e.args[0]), Bound(e, 1), Bound(e, 2), Bound(e, 3), e.line),
                      e.line);
      case Kind::kCall:
        return Charge(Call(e), e.line);
      case Kind::kFilter:
        return Charge(Filtered(e), e.line);
      case Kind::kTest:
        if (e.args.size() == 1) {
          if (const TemplateValue* place = Place(*e.args[0])) {
            return ApplyTest(e.text, *place, {}, e.line);
          }
        }
        return ApplyTest(e.text, Eval(*e.args[0]), Evaluate(e), e.line);
    }
    return Undefined();
  }

  // As a condition. What walks items is lazy in Jinja, and true whatever it finds.
  bool Holds(const Expression& e) {
    if (e.kind == Kind::kBinary && e.text == "and") return Holds(*e.args[0]) && Holds(*e.args[1]);
    if (e.kind == Kind::kBinary && e.text == "or") return Holds(*e.args[0]) || Holds(*e.args[1]);
    if (e.kind == Kind::kCondition) {
      return Holds(*e.args[0]) ? Holds(*e.args[1]) : e.args[2] && Holds(*e.args[2]);
    }
    return IsTrueOf(e, Eval(e));
  }
  static bool IsTrueOf(const Expression& e, const TemplateValue& value) {
    return (e.kind == Kind::kFilter && WalksItems(e.text)) || IsTrue(value);
  }

  TemplateValue Filtered(const Expression& e) {
    // These look at a list where it lies, as templates do once a message.
    if (e.text == "length" || e.text == "count" || e.text == "first" || e.text == "last") {
      const TemplateValue* place = Place(*e.args[0]);
      if (place && place->is_structured()) return ApplyFilter(e.text, *place, {}, e.line);
    }
    const TemplateValue value = Eval(*e.args[0]);
    const Arguments arguments = Evaluate(e);
    if (WalksItems(e.text)) {  // each item may be compared with the arguments, or become them
      size_t size = 0;
      for (const TemplateValue& argument : arguments.positional) size += Size(argument, e.line);
      for (const auto& [name, argument] : arguments.named) size += Size(argument, e.line);
      const size_t items = std::max<size_t>(1, CountItems(value));
      if (size > budget_ / items) Exhausted(e.line, "the template makes too much data");
      Spend(size * items, e.line);
    }
    return ApplyFilter(e.text, value, arguments, e.line);
  }

  // Of a slice; undefined where it is left out.
  TemplateValue Bound(const Expression& e, size_t i) {
    return e.args[i] ? Eval(*e.args[i]) : Undefined();
  }

  TemplateValue Lookup(const Expression& e) {
    if (const TemplateValue* place = Place(e)) return Charge(*place, e.line);
    if (e.kind == Kind::kName) return Undefined();
    TemplateValue owner = Eval(*e.args[0]);
    if (owner.is_discarded()) {
      FailAt(e.line, "looking into an undefined value" +
                         (e.text.empty() ? std::string() : " for '" + e.text + "'"));
    }
    const TemplateValue* found =
        e.kind == Kind::kAttribute ? Member(owner, e.text) : At(owner, Eval(*e.args[1]), e.line);
    return found ? *found : Undefined();
  }

  TemplateValue Dict(const Expression& e) {
    TemplateValue dict = TemplateValue::object();
    for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
      TemplateValue key = Eval(*e.args[i]);
      if (!key.is_string()) FailAt(e.line, "a dict's keys must be strings");
      dict[key.get<std::string>()] = Eval(*e.args[i + 1]);
    }
    return Charge(std::move(dict), e.line);
  }

  TemplateValue Unary(const Expression& e) {
    if (e.text == "not") return !Holds(*e.args[0]);
    return Arithmetic(0, Eval(*e.args[0]), "-", e.line);
  }

  static TemplateValue Arithmetic(const TemplateValue& left, const TemplateValue& right,
                                  const std::string& op, int line) {
    if (!left.is_number_integer() || !right.is_number_integer()) {
      FailAt(line, "'" + op + "' wants whole numbers" + (op == "+" ? ", strings or lists" : ""));
    }
    auto a = left.get<int64_t>(), b = right.get<int64_t>();
    int64_t result = 0;
    bool overflow = false;
    if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
    if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
    if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
    if (op == "//" || op == "%") {
      if (b == 0) FailAt(line, "division by zero");
      if (b == -1) return op == "%" ? TemplateValue(0) : Arithmetic(0, a, "-", line);
      int64_t quotient = a / b - (a % b != 0 && (a < 0) != (b < 0));  // rounds down, as Python
      result = op == "%" ? a - quotient * b : quotient;
    }
    if (overflow) FailAt(line, "the number is too large");
    return result;
  }

  TemplateValue Binary(const Expression& e) {
    TemplateValue left = Eval(*e.args[0]);
    if (e.text == "and") return IsTrueOf(*e.args[0], left) ? Eval(*e.args[1]) : left;
    if (e.text == "or") return IsTrueOf(*e.args[0], left) ? left : Eval(*e.args[1]);
    TemplateValue right = Eval(*e.args[1]);
    if (e.text == "==") return Equal(left, right);
    if (e.text == "!=") return !Equal(left, right);
    if (e.text == "in") return Contains(left, right, e.line);
    if (e.text == "~") return ToText(left, e.line) + ToText(right, e.line);
    if (e.text[0] == '<' || e.text[0] == '>') {
      if (!(left.is_number() && right.is_number()) && !(left.is_string() && right.is_string())) {
        FailAt(e.line, "'" + e.text + "' wants two numbers or two strings");
      }
      if (e.text == "<") return left < right;
      if (e.text == "<=") return left <= right;
      return e.text == ">" ? left > right : left >= right;
    }
    if (e.text == "+" && left.is_string() && right.is_string()) {
      return left.get_ref<const std::string&>() + right.get_ref<const std::string&>();
    }
    if (e.text == "+" && left.is_array() && right.is_array()) {
      for (auto& item : right) left.push_back(std::move(item));
      return left;
    }
    return Arithmetic(left, right, e.text, e.line);
  }

  Arguments Evaluate(const Expression& e) {
    Arguments arguments;
    for (size_t i = 1; i < e.args.size(); ++i) arguments.positional.push_back(Eval(*e.args[i]));
    for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, Eval(*value));
    return arguments;
  }

  TemplateValue Call(const Expression& e) {
    const Expression& callee = *e.args[0];
    Arguments arguments = Evaluate(e);
    if (callee.kind == Kind::kAttribute) {
      return CallMethod(callee.text, Eval(*callee.args[0]), arguments, e.line);
    }
    if (callee.kind == Kind::kName && callee.text == "namespace") {
      TemplateValue made = TemplateValue::object();
      for (auto& [name, value] : arguments.named) made[name] = std::move(value);
      return made;
    }
    if (callee.kind == Kind::kName && callee.text == "raise_exception") {
      FailAt(e.line, "the template refuses: " + ToText(arguments.Get(0, "message"), e.line));
    }
    FailAt(e.line, "the function '" + callee.text + "' is not supported");
  }

  std::vector<Scope> scopes_;
  std::string out_;
  int steps_ = 0;
  size_t budget_;
};

// "\r\n" and "\r" as "\n", as Jinja reads a source.
std::string OneKindOfLines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && source.substr(i + 1).starts_with('\n')) continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  return out;
}

bool TooDeep(std::string_view json) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (in_string) {
      if (json[i] == '\\')
        ++i;
      else if (json[i] == '"')
        in_string = false;
    } else if (json[i] == '"') {
      in_string = true;
    } else if (json[i] == '[' || json[i] == '{') {
      if (++depth > kMaxValueDepth) return true;
    } else if (json[i] == ']' || json[i] == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

struct ChatTemplate::Impl {
  std::vector<Statement> body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) return InvalidArgument("chat template: over 1 MiB");
  if (InvalidUtf8At(source)) return InvalidArgument("chat template: not UTF-8");
  try {
    auto impl = std::make_unique<Impl>();
    impl->body = ParseTemplate(OneKindOfLines(source));
    return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(impl)));
  } catch (const TemplateError& error) {
    return error.status.WithContext("chat template");
  }
}

Result<std::string> ChatTemplate::Render(std::string_view variables_json) const {
  if (variables_json.size() > kMaxInputBytes) return InvalidArgument("variables: over 64 MiB");
  if (TooDeep(variables_json)) return InvalidArgument("variables: nested more than 64 deep");
  try {
    TemplateValue variables = TemplateValue::parse(variables_json);
    if (!variables.is_object()) return InvalidArgument("variables: must be a JSON object");
    // The library always passes them: templates ask whether they are none.
    for (const char* name : {"tools", "documents"}) variables.emplace(name, nullptr);
    return Interpreter(std::move(variables), variables_json.size()).Run(impl_->body);
  } catch (const TemplateError& error) {
    return error.status.WithContext("chat template");
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument(std::string("variables: ") + error.what());
  }
}

}  // namespace lepton::tokenizer
