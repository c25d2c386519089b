#include "runtime/formats/tokenizer/chat_template.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "runtime/base/file.h"

namespace lepton::tokenizer {
namespace {

Result<std::string> Render(std::string_view source, std::string_view variables = "{}") {
  LEPTON_ASSIGN_OR_RETURN(auto parsed, ChatTemplate::Parse(source));
  return parsed->Render(variables);
}

std::string Error(std::string_view source, std::string_view variables = "{}") {
  auto text = Render(source, variables);
  return text.ok() ? "no error: " + *text : text.status().message();
}

TEST(ChatTemplateTest, RendersAsThePublicImplementation) {
  auto bytes = ReadFile(LEPTON_GOLDENS "/chat_templates.json");
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  auto cases = nlohmann::ordered_json::parse(*bytes);
  ASSERT_EQ(cases.size(), 14u);
  for (const auto& one : cases) {
    auto text = Render(one["template"].get<std::string>(), one["variables"].dump());
    ASSERT_TRUE(text.ok()) << one["name"] << text.status().ToString();
    EXPECT_EQ(*text, one["expected"].get<std::string>()) << one["name"];
  }
}

TEST(ChatTemplateTest, ExpressionsAndScopes) {
  EXPECT_EQ(Render("{{ -7 // 2 }} {{ -7 % 3 }} {{ 1 + 2 * 3 }}").value(), "-4 2 7");
  EXPECT_EQ(
      Render("{% set x = 1 %}{% for i in [1, 2] %}{% set x = 5 %}{% endfor %}{{ x }}").value(),
      "1");
  EXPECT_EQ(Render("{% for k, v in d.items() %}{{ k ~ v }};{% endfor %}", R"({"d":{"b":1,"a":2}})")
                .value(),
            "b1;a2;");
  EXPECT_EQ(Render("{{ ['a', 'b'] | join('-') }} {{ none }} {{ true }} {{ u }}").value(),
            "a-b None True ");
  EXPECT_EQ(Render(R"({{ d | tojson }})", R"({"d":{"k":[1,"é\n",null]}})").value(),
            R"({"k": [1, "é\n", null]})");
}

// As Python has them; Qwen3's template goes through its messages from the end and cuts thoughts
// out.
TEST(ChatTemplateTest, SlicesWithStepsAndSplits) {
  const auto text = [](const std::string& expression) {
    const auto made =
        Render("{{ (" + expression + ") | join(',') }}", R"({"l":[0,1,2,3,4],"s":"héllo"})");
    return made.ok() ? *made : made.status().message();
  };
  EXPECT_EQ(text("l[::-1]"), "4,3,2,1,0");
  EXPECT_EQ(text("l[3:0:-2]"), "3,1");
  EXPECT_EQ(text("l[-9::2]"), "0,2,4");
  EXPECT_EQ(text("l[9:-9:-3]"), "4,1");
  EXPECT_EQ(text("l[1:4:]"), "1,2,3");
  EXPECT_EQ(text("[s[::-1]]"), "olléh");
  EXPECT_EQ(text("l[::0]"), "chat template: line 1: a slice wants a step that is not 0");
  EXPECT_EQ(text("'a--b--'.split('--')"), "a,b,");
  EXPECT_EQ(text("'a b  c'.split(' ', 1)"), "a,b  c");
  EXPECT_EQ(text("' a\\n b '.split()"), "a,b");
  EXPECT_EQ(text("'a b c'.split(none, 1)"), "a,b c");
  EXPECT_EQ(text("''.split(',')"), "");
  EXPECT_EQ(text("'a'.split('')"), "chat template: line 1: split wants a separator");
  EXPECT_EQ(Render("{{ s.split('</think>')[-1].lstrip('\\n') }}",
                   R"({"s":"<think>\nso\n</think>\n\nyes"})")
                .value(),
            "yes");
}

// As Python's Jinja has them.
TEST(ChatTemplateTest, FiltersOfListsAndTestsWithArguments) {
  const auto text = [](const std::string& expression) {
    const auto made =
        Render("{{ " + expression + " }}",
               R"({"l":[{"r":"u","n":1,"d":{"k":"x"}},{"r":"a","n":2},{"n":0,"r":"u"}],
                                 "t":["brave","code","wolfram"]})");
    return made.ok() ? *made : made.status().message();
  };
  EXPECT_EQ(text("t | reject('equalto', 'code') | join(', ')"), "brave, wolfram");
  EXPECT_EQ(text("t | select('in', ['code', 'x']) | list | length"), "1");
  EXPECT_EQ(text("l | selectattr('r', 'equalto', 'u') | map(attribute='n') | join('-')"), "1-0");
  EXPECT_EQ(text("l | rejectattr('r', '==', 'u') | map(attribute='n') | list | tojson"), "[2]");
  EXPECT_EQ(text("l | selectattr('n') | list | length"), "2");
  EXPECT_EQ(text("l | selectattr('d', 'defined') | list | length"), "1");
  EXPECT_EQ(text("l | map(attribute='d.k', default='-') | join"), "x--");
  EXPECT_EQ(text("t | map('upper') | list | join(' ')"), "BRAVE CODE WOLFRAM");
  EXPECT_EQ(text("'ab' | list | join('.')"), "a.b");
  EXPECT_EQ(text("[1, 2, 3, 4] | select('odd') | join"), "13");
  EXPECT_EQ(text("[0, 2, 3] | reject | join"), "0");
  EXPECT_EQ(text("3 is odd"), "True");
  EXPECT_EQ(text("'a' is in ['a']"), "True");
  EXPECT_EQ(text("'a' is equalto 'b'"), "False");
  EXPECT_EQ(text("1 is eq(1) and 2 is ne 3"), "True");
  EXPECT_EQ(text("'y' if x is defined else 'n'"), "n");
  EXPECT_EQ(text("l | selectattr('d.k')"),
            "chat template: line 1: looking into an undefined value for 'k'");
  EXPECT_EQ(text("3 | select"), "chat template: line 1: select wants a list");
  EXPECT_EQ(text("t | map"), "chat template: line 1: map wants a name");
  EXPECT_EQ(text("t | map('map', 'upper')"),
            "chat template: line 1: map of the filter 'map' is not supported");
  EXPECT_EQ(text("t | select('like', 'x')"),
            "chat template: line 1: the test 'like' with an argument is not supported");
}

TEST(ChatTemplateTest, ATestsArgumentIsLookedInto) {
  const auto text = [](const std::string& expression) {
    return Render("{{ " + expression + " }}",
                  R"({"x":"user","y":{"role":"user","l":["user"]},"m":[{"r":"a"},{"r":"a"}]})")
        .value();
  };
  EXPECT_EQ(text("x is eq y.role"), "True");
  EXPECT_EQ(text("x is eq y['role']"), "True");
  EXPECT_EQ(text("x is in y.l"), "True");
  EXPECT_EQ(text("x is not in y.l"), "False");
  EXPECT_EQ(text("m[0].r is equalto m[1].r"), "True");
  EXPECT_EQ(text("x is ne y.l[0] and true"), "False");
}

// As Jinja's Undefined; what walks items is a generator there.
TEST(ChatTemplateTest, WhatIsUndefinedHasNoItems) {
  EXPECT_EQ(Render("{% for t in m.tools %}x{% endfor %}.", R"({"m":{}})").value(), ".");
  EXPECT_EQ(Render("{{ u | length }}{{ 'a' in u }}{{ u | join(',') }}{{ u | map('upper') | join }}"
                   "{{ u is iterable }}{{ u | first is defined }}")
                .value(),
            "0FalseTrueFalse");
  EXPECT_EQ(Error("{{ u.x }}"), "chat template: line 1: looking into an undefined value for 'x'");
  constexpr char kMessages[] = R"({"m":[{"role":"user"}]})";
  EXPECT_EQ(Render("{% if m | selectattr('role', 'equalto', 'system') %}T{% else %}F{% endif %}",
                   kMessages)
                .value(),
            "T");
  EXPECT_EQ(
      Render("{% if m | selectattr('role', 'equalto', 'system') | list %}T{% else %}F{% endif "
             "%}{{ 'n' if not m | select }}",
             kMessages)
          .value(),
      "F");
}

TEST(ChatTemplateTest, LazyFiltersAreTrueInsideOfConditions) {
  EXPECT_EQ(Render("{{ 'a' if true and [] | select else 'b' }}{{ 'c' if not ([] | map('upper')) }}"
                   "{% if false or [] | reject %}d{% endif %}"
                   "{% if ([] | select if true else false) %}e{% endif %}"
                   "{% if ([] | select if true) %}f{% endif %}{{ ([] | select) and 'g' }}"
                   "{% for a in ([] | select) or [1] %}x{% endfor %}"
                   "{% for k, v in u | items %}x{% endfor %}.")
                .value(),
            "adefg.");
}

TEST(ChatTemplateTest, ToJsonTakesItsArgumentsByName) {
  EXPECT_EQ(Render("{{ l | tojson(indent=1, ensure_ascii=false) }}", R"({"l":["é"]})").value(),
            "[\n \"é\"\n]");
  EXPECT_EQ(Error("{{ l | tojson(2) }}", R"({"l":[1]})"),
            "chat template: line 1: tojson: name its arguments, as in indent=2");
  EXPECT_EQ(Error("{{ l | tojson(ensure_ascii=true) }}", R"({"l":[1]})"),
            "chat template: line 1: tojson: ensure_ascii is not supported");
}

// Templates of instruct models have branches for tools that no chat without them reaches.
TEST(ChatTemplateTest, WhatIsNotSupportedFailsWhereItIsEvaluated) {
  constexpr char kTemplate[] =
      "a\n{% if tools %}{{ tools | groupby('x') }}{{ tools is divisibleby 3 }}{% endif %}b";
  EXPECT_EQ(Render(kTemplate).value(), "a\nb");
  EXPECT_EQ(Error(kTemplate, R"({"tools": [1]})"),
            "chat template: line 2: the filter 'groupby' is not supported");
  EXPECT_EQ(Error("{{ 4 is fine }}"), "chat template: line 1: the test 'fine' is not supported");
  EXPECT_EQ(Error("{{ [1] | map('fine') }}"),
            "chat template: line 1: the filter 'fine' is not supported");
}

// Qwen3's looks at the whole list for each of its messages.
TEST(ChatTemplateTest, LongChatsAreLookedAtWhereTheyLie) {
  nlohmann::json messages = nlohmann::json::array();
  for (int i = 0; i < 2000; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"},
                        {"content", std::string(200, static_cast<char>('a' + i % 26))}});
  }
  const std::string variables = nlohmann::json({{"messages", messages}}).dump();
  constexpr char kTemplate[] =
      "{%- set ns = namespace(last=messages|length - 1) %}{%- for message in messages[::-1] %}"
      "{%- set index = (messages|length - 1) - loop.index0 %}"
      "{%- if index == ns.last and messages is iterable and not messages is string %}"
      "{{ message.role ~ (messages | first).role }};{%- endif %}"
      "{%- endfor %}{{ messages | count }}";
  const auto text = Render(kTemplate, variables);
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_EQ(*text, "assistantuser;2000");
}

// What the transformers library always passes, and how Jinja reads lines.
TEST(ChatTemplateTest, ToolsAreNoneAndLinesEndInOneWay) {
  constexpr char kTools[] =
      "{% if tools is not none %}tools{% endif %}{% if documents is defined and documents %}d"
      "{% endif %}.";
  EXPECT_EQ(Render(kTools).value(), ".");
  EXPECT_EQ(Render(kTools, R"({"tools": [1], "documents": [2]})").value(), "toolsd.");
  EXPECT_EQ(Render("a\r\n{% if true %}\r\nb\r{% endif %}\r\nc\r\n").value(), "a\nb\nc");
}

TEST(ChatTemplateTest, ErrorsNameTheLine) {
  EXPECT_EQ(Error("a\n{% macro f() %}"),
            "chat template: line 2: the statement 'macro' is not supported");
  EXPECT_EQ(Error("\n\n{{ x | reverse }}"),
            "chat template: line 3: the filter 'reverse' is not supported");
  EXPECT_EQ(Error("{{ raise_exception('no ' ~ 'way') }}"),
            "chat template: line 1: the template refuses: no way");
  EXPECT_EQ(Error("{{ x.y }}"), "chat template: line 1: looking into an undefined value for 'y'");
  EXPECT_EQ(Error("{% if x %}"), "chat template: line 1: the if has no endif");
  EXPECT_EQ(Error("{% endfor %}"), "chat template: line 1: 'endfor' without its begin");
  EXPECT_EQ(Error("{{ 'a"), "chat template: line 1: the string has no end");
  EXPECT_EQ(Error("{{ a b }}").find("chat template: line 1: the end of the tag"), 0u);
  EXPECT_EQ(Error("{{ f(1) }}"), "chat template: line 1: the function 'f' is not supported");
}

TEST(ChatTemplateTest, HostileTemplatesAreStopped) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "(";
  EXPECT_NE(
      Error("{{ " + deep + std::string(deep.size(), ')') + "}}").find("nested more than 64 deep"),
      std::string::npos);
  std::string ifs;
  for (int i = 0; i < 1000; ++i) ifs += "{% if 1 %}";
  EXPECT_NE(Error(ifs).find("nested more than 64 deep"), std::string::npos);
  std::string doubling =
      "{% set n = namespace(x='aaaaaaaa') %}{% for i in l %}"
      "{% set n.x = n.x + n.x %}{% endfor %}";
  std::string list = R"({"l":[0)";
  for (int i = 0; i < 200; ++i) list += ",0";
  list += "]}";
  EXPECT_EQ(Render(doubling, list).status().code(), StatusCode::kResourceExhausted);
  // Each item compared with a list, or replaced by a long text.
  std::string numbers = "[0";
  for (int i = 0; i < 20000; ++i) numbers += ",0";
  numbers = "{\"l\":" + numbers + "],\"s\":\"" + std::string(100000, 'x') + "\"}";
  EXPECT_EQ(Render("{{ l | reject('in', l) | length }}", numbers).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(Render("{{ l | map(attribute='a', default=s) | length }}", numbers).status().code(),
            StatusCode::kResourceExhausted);
  // Of a string each character is an item.
  const std::string text =
      nlohmann::json(
          {{"s", std::string(200'000, 'x')},
           {"l", std::vector<int>(2'000)},
           {"e", std::vector<std::vector<std::string>>(100, std::vector<std::string>(4'000))}})
          .dump();
  EXPECT_EQ(Render("{{ s | map(attribute='a', default=s) | list | length }}", text).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(Render("{{ s | reject('in', l) | list | length }}", text).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_THAT(Error("{{ e | map('join', s[:16000]) | list | length }}", text),
              testing::HasSubstr("map makes more than 64 MiB"));
  EXPECT_EQ(Render("{{ s.strip(s) }}.", text).value(), ".") << "and soon";
  std::string loops, ends;
  for (int i = 0; i < 8; ++i) loops += "{% for i in l %}", ends += "{% endfor %}";
  EXPECT_EQ(Render(loops + ends, list).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Render("x", std::string(100000, '[')).status().code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplateTest, DamagedTemplatesNeverCrash) {
  const std::string good =
      "{% set ns = namespace(a=[1, {'k': 'v'}]) %}{%- for m in messages[1:] if m.x is defined -%}"
      "{{ m['x'][0:2] | trim ~ (ns.a | tojson(indent=2)) if loop.last else -1 }}{% endfor %}";
  uint32_t state = 3;
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    state = state * 1664525u + 1013904223u;
    bad[(state >> 8) % bad.size()] = "{}%'\"[]().|x1 -"[(state >> 20) % 15];
    if (i % 4 == 0) bad.resize((state >> 6) % bad.size());
    (void)Render(bad, R"({"messages":[{"x":"ab"},{"x":"cde"},{}]})");
  }
}

}  // namespace
}  // namespace lepton::tokenizer
