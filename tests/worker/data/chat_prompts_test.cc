// Chats as prompts: what the template writes, as the tokens that it means.
#include "worker/data/chat_prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "tests/storage/status_matchers.h"
#include "tests/worker/data/tiny_tokenizer.h"

namespace lepton::worker {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTemplate[] =
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ' ' + message['content'] }} "
    "[SEP] {% endfor %}{% if add_generation_prompt %}assistant{% endif %}";

class ChatPromptsTest : public ::testing::Test {
 protected:
  ChatPromptsTest() : objects_(storage::ObjectStore::Open(folder_.path()).value()) {}

  std::shared_ptr<const TextEncoder> Encoder() {
    const std::string tokenizer =
        testing::TinyTokenizerJson({"user", "assistant", "hello", "good", "cat", "role", "content",
                                    "{", "}", "\"", ":", ",", "first"});
    return TextEncoder::Load(*objects_, objects_->Put(tokenizer).value()).value();
  }
  Result<std::shared_ptr<const ChatPrompts>> Load(const std::map<std::string, std::string>& files) {
    storage::ModelManifest model;
    for (const auto& [name, bytes] : files) model.files[name] = objects_->Put(bytes).value();
    return ChatPrompts::Load(*objects_, model, Encoder());
  }
  std::shared_ptr<const ChatPrompts> Plain() {
    const json config = {{"chat_template", kTemplate}, {"bos_token", {{"content", "[CLS]"}}}};
    return Load({{"tokenizer_config.json", config.dump()}}).value();
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> objects_;
};

constexpr char kHello[] = R"([{"role":"user","content":"hello cat"}])";

// Ids: [CLS] 2, [SEP] 3, user 4, assistant 5, hello 6, good 7, cat 8.
TEST_F(ChatPromptsTest, SpecialTokensOfTheTemplateAreTokensAndNothingIsAddedToThem) {
  const auto prompts = Plain();
  EXPECT_THAT(prompts->Encode(kHello, 64)->ids, ElementsAre(2, 4, 6, 8, 3, 5));
  const std::string body = R"({"model":"m","messages":)" + std::string(kHello) + "}";
  EXPECT_THAT(prompts->Encode(body, 64)->ids, ElementsAre(2, 4, 6, 8, 3, 5));
  EXPECT_THAT(prompts
                  ->Encode(R"([{"role":"user","content":"hello"},
                               {"role":"assistant","content":"good"},
                               {"role":"user","content":"cat"}])",
                           64)
                  ->ids,
              ElementsAre(2, 4, 6, 3, 5, 7, 3, 4, 8, 3, 5));
}

TEST_F(ChatPromptsTest, TemplatesComeFromTheFilesOfAFolder) {
  const json several = {
      {"chat_template",
       {{{"name", "tool_use"}, {"template", "cat"}}, {{"name", "default"}, {"template", "good"}}}}};
  EXPECT_THAT(Load({{"tokenizer_config.json", several.dump()}}).value()->Encode(kHello, 64)->ids,
              ElementsAre(7));
  // The file goes before the field, and its own tokens' names before the map's.
  const json config = {{"chat_template", "cat"}, {"bos_token", "[CLS]"}};
  const json map = {{"bos_token", "[PAD]"}, {"eos_token", "[SEP]"}};
  const auto both = Load({{"tokenizer_config.json", config.dump()},
                          {"special_tokens_map.json", map.dump()},
                          {"chat_template.jinja", "{{ bos_token }}first{{ eos_token }}"}});
  EXPECT_THAT(both.value()->Encode(kHello, 64)->ids, ElementsAre(2, 16, 3));
  // Fields of a message keep their order.
  const auto written = Load({{"chat_template.jinja", "{{ messages[0] | tojson }}"}});
  EXPECT_THAT(written.value()->Encode(R"([{"role":"user","content":"cat"}])", 64)->ids,
              ElementsAre(11, 13, 9, 13, 14, 13, 4, 13, 15, 13, 10, 13, 14, 13, 8, 13, 12));
}

TEST_F(ChatPromptsTest, AModelWithoutATemplateSaysWhatToDo) {
  const auto code = StatusCode::kInvalidArgument;
  EXPECT_THAT(Load({}), Fails(code, "dataset.messages: the model has no chat_template"));
  EXPECT_THAT(Load({{"tokenizer_config.json", "{}"}}), Fails(code, "chat_template.jinja"));
  EXPECT_THAT(Load({{"chat_template.jinja", "{% if %}"}}),
              Fails(code, "dataset.messages: chat template: line 1"));
}

TEST_F(ChatPromptsTest, WhatIsNoChatSaysWhy) {
  const auto prompts = Plain();
  const auto says = [&](const std::string& chat, const std::string& why) {
    const Status status = prompts->Encode(chat, 64).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << chat;
    EXPECT_THAT(status.message(), HasSubstr(why)) << chat;
  };
  says("", "messages: not JSON");
  says("hello", "messages: not JSON");
  says("{\"role\":\"user\"}", "messages: no list");
  says("[]", "messages: the list is empty");
  says("[\"hello\"]", "messages: message 1 has no role");
  says(R"([{"role":"user","content":"cat"},{"content":"good"}])", "message 2 has no role");
  says(R"([{"role":"user"}])", "message 1 has no content");
  const Status longer = prompts->Encode(kHello, 5).status();
  EXPECT_THAT(longer.message(), HasSubstr("6 tokens, but the context is 5"));
  // What the template itself objects to.
  const auto strict =
      Load({{"chat_template.jinja", "{{ raise_exception('roles must alternate') }}"}});
  EXPECT_THAT(strict.value()->Encode(kHello, 64), Fails(StatusCode::kInvalidArgument, "alternate"));
}

}  // namespace
}  // namespace lepton::worker
