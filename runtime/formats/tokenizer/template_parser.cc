#include <algorithm>
#include <array>
#include <cstdlib>

#include "runtime/formats/tokenizer/template_lexer.h"
#include "runtime/formats/tokenizer/template_syntax.h"

namespace lepton::tokenizer {

void FailAt(int line, const std::string& what) {
  throw TemplateError{InvalidArgument("line " + std::to_string(line) + ": " + what)};
}

namespace {

using Kind = Expression::Kind;
using TokenKind = TemplateToken::Kind;

constexpr int kMaxBlockDepth = 64;

constexpr std::string_view kWordsBehindTests[] = {"and", "or", "if", "else", "is", "in", "not"};
constexpr std::string_view kLoop[] = {"index", "index0", "revindex", "revindex0",
                                      "first", "last",   "length"};

template <size_t n>
bool Has(const std::string_view (&list)[n], std::string_view name) {
  return std::find(list, list + n, name) != list + n;
}

// Counts nesting while it lives.
class Deeper {
 public:
  Deeper(int& depth, int line) : depth_(depth) {
    if (++depth_ > kMaxBlockDepth) FailAt(line, "nested more than 64 deep");
  }
  ~Deeper() { --depth_; }

 private:
  int& depth_;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(const std::vector<TemplateToken>& tokens) : tokens_(tokens) {}

  const TemplateToken& Peek() const { return tokens_[at_]; }
  int line() const { return Peek().line; }
  bool AtEnd() const { return Peek().kind == TokenKind::kEnd; }
  bool Symbol(std::string_view text) { return Take(TokenKind::kSymbol, text); }
  bool Word(std::string_view text) { return Take(TokenKind::kName, text); }
  void Expect(std::string_view symbol) {
    if (!Symbol(symbol)) Unexpected("'" + std::string(symbol) + "' was expected");
  }
  std::string Name() {
    if (Peek().kind != TokenKind::kName) Unexpected("a name was expected");
    return tokens_[at_++].text;
  }
  void ExpectEnd() {
    if (!AtEnd()) Unexpected("the end of the tag was expected");
  }
  [[noreturn]] void Unexpected(const std::string& why) {
    FailAt(line(), why + (AtEnd() ? std::string(" at the end of the tag")
                                  : ", not '" + Peek().text.substr(0, 64) + "'"));
  }

  // A list that a `for` walks may not swallow the loop's own `if`.
  ExpressionPtr Parse(bool with_condition = true) {
    Deeper deeper(depth_, line());
    ExpressionPtr value = Or();
    if (!with_condition || !Word("if")) return value;
    ExpressionPtr condition = Make(Kind::kCondition, "if");
    condition->args.push_back(Or());
    condition->args.push_back(std::move(value));
    condition->args.push_back(Word("else") ? Parse() : nullptr);
    return condition;
  }

 private:
  bool Take(TokenKind kind, std::string_view text) {
    if (Peek().kind != kind || Peek().text != text) return false;
    ++at_;
    return true;
  }
  ExpressionPtr Make(Kind kind, std::string text) {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->line = line();
    made->text = std::move(text);
    return made;
  }
  ExpressionPtr Binary(std::string op, ExpressionPtr left, ExpressionPtr right) {
    // A chain of operators is a tree as deep as it is long.
    if (++operators_ > 256) FailAt(line(), "more than 256 operators in one tag");
    ExpressionPtr made = Make(Kind::kBinary, std::move(op));
    made->args.push_back(std::move(left));
    made->args.push_back(std::move(right));
    return made;
  }
  ExpressionPtr Unary(std::string op, ExpressionPtr value) {
    ExpressionPtr made = Make(Kind::kUnary, std::move(op));
    made->args.push_back(std::move(value));
    return made;
  }

  ExpressionPtr Or() {
    ExpressionPtr left = And();
    while (Word("or")) left = Binary("or", std::move(left), And());
    return left;
  }
  ExpressionPtr And() {
    ExpressionPtr left = Not();
    while (Word("and")) left = Binary("and", std::move(left), Not());
    return left;
  }
  ExpressionPtr Not() {
    Deeper deeper(depth_, line());
    if (Word("not")) return Unary("not", Not());
    return Compare();
  }
  ExpressionPtr Compare() {
    ExpressionPtr left = Sum();
    for (bool found = true; found;) {
      found = false;
      for (std::string_view op : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (!Symbol(op)) continue;
        left = Binary(std::string(op), std::move(left), Sum());
        found = true;
        break;
      }
      if (!found && Word("in")) {
        left = Binary("in", std::move(left), Sum());
        found = true;
      } else if (!found && Peek().text == "not" && Peek().kind == TokenKind::kName) {
        ++at_;
        if (!Word("in")) Unexpected("'in' was expected");
        left = Unary("not", Binary("in", std::move(left), Sum()));
        found = true;
      }
    }
    return left;
  }
  ExpressionPtr Sum() {
    ExpressionPtr left = Concat();
    while (true) {
      if (Symbol("+"))
        left = Binary("+", std::move(left), Concat());
      else if (Symbol("-"))
        left = Binary("-", std::move(left), Concat());
      else
        return left;
    }
  }
  ExpressionPtr Concat() {
    ExpressionPtr left = Product();
    while (Symbol("~")) left = Binary("~", std::move(left), Product());
    return left;
  }
  ExpressionPtr Product() {
    ExpressionPtr left = Sign();
    while (true) {
      if (Symbol("*"))
        left = Binary("*", std::move(left), Sign());
      else if (Symbol("//"))
        left = Binary("//", std::move(left), Sign());
      else if (Symbol("%"))
        left = Binary("%", std::move(left), Sign());
      else
        return left;
    }
  }
  ExpressionPtr Sign() {
    Deeper deeper(depth_, line());
    if (Symbol("-")) return Unary("-", Sign());
    return Postfix();
  }

  // A value and what looks into it.
  ExpressionPtr Reference() {
    ExpressionPtr value = Primary();
    while (true) {
      if (Symbol(".")) {
        std::string name = Name();
        bool loop = value->kind == Kind::kName && value->text == "loop";
        if (loop && !Has(kLoop, name)) FailAt(line(), "loop." + name + " is not supported");
        value = Wrap(Kind::kAttribute, std::move(name), std::move(value));
      } else if (Symbol("[")) {
        value = Subscript(std::move(value));
      } else if (Symbol("(")) {
        value = Wrap(Kind::kCall, "", std::move(value));
        Arguments(*value);
      } else {
        return value;
      }
    }
  }
  ExpressionPtr Postfix() {
    ExpressionPtr value = Reference();
    while (true) {
      if (Symbol("|")) {
        std::string name = Name();
        value = Wrap(Kind::kFilter, std::move(name), std::move(value));
        if (Symbol("(")) Arguments(*value);
      } else if (Word("is")) {
        bool negated = Word("not");
        std::string name = Name();
        value = Wrap(Kind::kTest, std::move(name), std::move(value));
        TestArguments(*value);
        if (negated) value = Unary("not", std::move(value));
      } else {
        return value;
      }
    }
  }
  ExpressionPtr Wrap(Kind kind, std::string text, ExpressionPtr inner) {
    if (++operators_ > 256) FailAt(line(), "more than 256 operators in one tag");
    ExpressionPtr made = Make(kind, std::move(text));
    made->args.push_back(std::move(inner));
    return made;
  }
  // In parentheses, or one reference without.
  void TestArguments(Expression& test) {
    if (Symbol("(")) return Arguments(test);
    const TemplateToken& next = Peek();
    const bool begins = next.kind == TokenKind::kString || next.kind == TokenKind::kNumber ||
                        (next.kind == TokenKind::kSymbol && (next.text == "[" || next.text == "{"));
    const bool named = next.kind == TokenKind::kName && !Has(kWordsBehindTests, next.text);
    if (begins || named) test.args.push_back(Reference());
  }
  ExpressionPtr Subscript(ExpressionPtr value) {
    ExpressionPtr begin = Peek().text == ":" ? nullptr : Parse();
    if (!Symbol(":")) {
      Expect("]");
      value = Wrap(Kind::kIndex, "", std::move(value));
      value->args.push_back(std::move(begin));
      return value;
    }
    ExpressionPtr end = Peek().text == "]" || Peek().text == ":" ? nullptr : Parse();
    ExpressionPtr step = Symbol(":") && Peek().text != "]" ? Parse() : nullptr;
    Expect("]");
    value = Wrap(Kind::kSlice, "", std::move(value));
    value->args.push_back(std::move(begin));
    value->args.push_back(std::move(end));
    value->args.push_back(std::move(step));
    return value;
  }
  void Arguments(Expression& call) {
    while (!Symbol(")")) {
      bool named = Peek().kind == TokenKind::kName && at_ + 1 < tokens_.size() &&
                   tokens_[at_ + 1].kind == TokenKind::kSymbol && tokens_[at_ + 1].text == "=";
      if (named) {
        std::string name = Name();
        Expect("=");
        call.named.emplace_back(std::move(name), Parse());
      } else {
        call.args.push_back(Parse());
      }
      if (Symbol(")")) return;
      Expect(",");
    }
  }

  ExpressionPtr Primary() {
    const TemplateToken& token = Peek();
    ExpressionPtr made = Make(Kind::kLiteral, "");
    if (token.kind == TokenKind::kString) {
      std::string text;
      while (Peek().kind == TokenKind::kString) text += tokens_[at_++].text;
      made->literal = text;
      return made;
    }
    if (token.kind == TokenKind::kNumber) {
      made->literal = std::strtoll(token.text.c_str(), nullptr, 10);
      ++at_;
      return made;
    }
    if (token.kind == TokenKind::kName) return NameOrConstant();
    if (Symbol("(")) {
      ExpressionPtr inner = Parse();
      if (Peek().text == ",") FailAt(line(), "a tuple is not supported");
      Expect(")");
      return inner;
    }
    if (Symbol("[")) return List();
    if (Symbol("{")) return Dict();
    Unexpected("a value was expected");
  }
  ExpressionPtr NameOrConstant() {
    ExpressionPtr made = Make(Kind::kLiteral, "");
    std::string name = Name();
    if (name == "true" || name == "True") {
      made->literal = true;
    } else if (name == "false" || name == "False") {
      made->literal = false;
    } else if (name != "none" && name != "None") {
      made->kind = Kind::kName;
      made->text = std::move(name);
    }
    return made;
  }
  ExpressionPtr List() {
    ExpressionPtr made = Make(Kind::kList, "");
    while (!Symbol("]")) {
      made->args.push_back(Parse());
      if (Symbol("]")) break;
      Expect(",");
    }
    return made;
  }
  ExpressionPtr Dict() {
    ExpressionPtr made = Make(Kind::kDict, "");
    while (!Symbol("}")) {
      made->args.push_back(Parse());
      Expect(":");
      made->args.push_back(Parse());
      if (Symbol("}")) break;
      Expect(",");
    }
    return made;
  }

  const std::vector<TemplateToken>& tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int operators_ = 0;
};

class TemplateParser {
 public:
  explicit TemplateParser(std::vector<TemplateChunk> chunks) : chunks_(std::move(chunks)) {}

  std::vector<Statement> Run() {
    std::string end;
    std::vector<Statement> body = Body(end);
    if (!end.empty()) FailAt(chunks_[at_ - 1].line, "'" + end + "' without its begin");
    return body;
  }

 private:
  // Statements up to a closing tag, whose word goes to `end` (empty: the end of the template).
  std::vector<Statement> Body(std::string& end) {
    std::vector<Statement> body;
    end.clear();
    while (at_ < chunks_.size()) {
      TemplateChunk& chunk = chunks_[at_++];
      Statement statement;
      statement.line = chunk.line;
      if (chunk.kind == TemplateChunk::Kind::kText) {
        statement.text = std::move(chunk.text);
        body.push_back(std::move(statement));
        continue;
      }
      ExpressionParser parser(chunk.tokens);
      if (chunk.kind == TemplateChunk::Kind::kOutput) {
        statement.kind = Statement::Kind::kOutput;
        statement.value = parser.Parse();
        parser.ExpectEnd();
        body.push_back(std::move(statement));
        continue;
      }
      std::string word = parser.Name();
      if (word == "elif" || word == "else" || word == "endif" || word == "endfor") {
        end = word;
        if (word != "elif") parser.ExpectEnd();
        return body;
      }
      Deeper deeper(depth_, chunk.line);
      if (word == "set") {
        Set(parser, statement);
      } else if (word == "for") {
        For(parser, statement);
      } else if (word == "if") {
        If(parser, statement);
      } else {
        FailAt(chunk.line, "the statement '" + word.substr(0, 64) + "' is not supported");
      }
      body.push_back(std::move(statement));
    }
    return body;
  }

  static void Set(ExpressionParser& parser, Statement& statement) {
    statement.kind = Statement::Kind::kSet;
    statement.targets.push_back(parser.Name());
    if (parser.Symbol(".")) statement.targets.push_back(parser.Name());
    parser.Expect("=");
    statement.value = parser.Parse();
    parser.ExpectEnd();
  }

  void For(ExpressionParser& parser, Statement& statement) {
    statement.kind = Statement::Kind::kFor;
    do {
      statement.targets.push_back(parser.Name());
    } while (parser.Symbol(","));
    if (!parser.Word("in")) parser.Unexpected("'in' was expected");
    statement.value = parser.Parse(false);
    if (parser.Word("if")) statement.filter = parser.Parse();
    parser.ExpectEnd();
    std::string end;
    statement.body = Body(end);
    if (end != "endfor")
      FailAt(statement.line, "the for has no endfor (for-else is not supported)");
  }

  void If(ExpressionParser& parser, Statement& statement) {
    statement.kind = Statement::Kind::kIf;
    statement.value = parser.Parse();
    parser.ExpectEnd();
    std::string end;
    statement.body = Body(end);
    if (end == "elif") {
      Statement nested;
      nested.line = chunks_[at_ - 1].line;
      Deeper deeper(depth_, nested.line);
      ExpressionParser again(chunks_[at_ - 1].tokens);
      again.Name();
      If(again, nested);
      statement.otherwise.push_back(std::move(nested));
      return;
    }
    if (end == "else") statement.otherwise = Body(end);
    if (end != "endif") FailAt(statement.line, "the if has no endif");
  }

  std::vector<TemplateChunk> chunks_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<Statement> ParseTemplate(std::string_view source) {
  return TemplateParser(LexTemplate(source)).Run();
}

}  // namespace lepton::tokenizer
