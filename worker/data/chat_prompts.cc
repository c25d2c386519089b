#include "worker/data/chat_prompts.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/base/json_text.h"

namespace lepton::worker {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;  // templates may write a message's fields out

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

// A kept file of the model as text; "" where it has none.
Result<std::string> FileOf(const storage::ObjectStore& objects, const storage::ModelManifest& model,
                           const char* name) {
  const auto found = model.files.find(name);
  if (found == model.files.end()) return std::string();
  return objects.Get(found->second);
}

Result<Json> JsonFileOf(const storage::ObjectStore& objects, const storage::ModelManifest& model,
                        const char* name) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text, FileOf(objects, model, name));
  const Json document = ParseJson(text).value_or(Json());
  return document.is_object() ? document : Json::object();
}

// Of tokenizer_config.json: a text, or one of several with names.
std::string TemplateIn(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  for (const Json& named : found->is_array() ? *found : Json::array()) {
    if (!named.is_object() || named.value("name", Json()) != "default") continue;
    const Json text = named.value("template", Json());
    if (text.is_string()) return text.get<std::string>();
  }
  return "";
}

// A token's text, which files write as such or as an object with its content.
void AddTokens(const Json& config, Json& tokens) {
  for (const char* name : kSpecialTokens) {
    Json token = config.value(name, Json());
    if (token.is_object()) token = token.value("content", Json());
    if (token.is_string()) tokens[name] = std::move(token);
  }
}

Status NoChat(const std::string& why) {
  return InvalidArgument("messages: " + why +
                         ": a chat is a JSON list such as [{\"role\": \"user\", \"content\": "
                         "\"Hello\"}]");
}

Result<Ordered> MessagesOf(std::string_view chat) {
  if (NestedDeeper(chat, kMostJsonLevels)) return NoChat("nested too deep");
  Ordered messages = Ordered::parse(chat, nullptr, /*allow_exceptions=*/false);
  if (messages.is_discarded()) return NoChat("not JSON");
  if (messages.is_object() && messages.contains("messages")) {
    Ordered inner = std::move(messages["messages"]);
    messages = std::move(inner);
  }
  if (!messages.is_array()) return NoChat("no list");
  if (messages.empty()) return NoChat("the list is empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Ordered& message = messages[i];
    const bool has_role = message.is_object() && message.value("role", Ordered()).is_string();
    if (!has_role) return NoChat(fmt::format("message {} has no role", i + 1));
    if (!message.contains("content") && message.size() < 2) {
      return NoChat(fmt::format("message {} has no content", i + 1));
    }
  }
  return messages;
}

}  // namespace

Result<std::shared_ptr<const ChatPrompts>> ChatPrompts::Load(
    const storage::ObjectStore& objects, const storage::ModelManifest& model,
    std::shared_ptr<const TextEncoder> encoder) {
  auto prompts = std::shared_ptr<ChatPrompts>(new ChatPrompts());
  prompts->encoder_ = std::move(encoder);
  LEPTON_ASSIGN_OR_RETURN(std::string source, FileOf(objects, model, kTemplateFile));
  LEPTON_ASSIGN_OR_RETURN(const Json config, JsonFileOf(objects, model, kConfigFile));
  LEPTON_ASSIGN_OR_RETURN(const Json map, JsonFileOf(objects, model, "special_tokens_map.json"));
  if (source.empty()) source = TemplateIn(config);
  if (source.empty()) {
    return InvalidArgument(fmt::format(
        "dataset.messages: the model has no chat_template: add {} to its folder, or chat_template "
        "to its {}; or write the prompts out in a column of texts, with dataset.text",
        kTemplateFile, kConfigFile));
  }
  auto parsed = tokenizer::ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status().WithContext("dataset.messages");
  prompts->template_ = *std::move(parsed);
  Json tokens = Json::object();
  AddTokens(map, tokens);
  AddTokens(config, tokens);
  prompts->special_tokens_ = tokens.dump();
  prompts->recipe_ =
      fmt::format("{}\n{}\n{}", prompts->encoder_->name(), prompts->special_tokens_, source);
  return std::shared_ptr<const ChatPrompts>(std::move(prompts));
}

Result<TokenText> ChatPrompts::Encode(std::string_view chat, int64_t context) const {
  LEPTON_ASSIGN_OR_RETURN(Ordered messages, MessagesOf(chat));
  Ordered variables = Ordered::parse(special_tokens_);
  variables["messages"] = std::move(messages);
  variables["add_generation_prompt"] = true;
  auto text = template_->Render(variables.dump(-1, ' ', false, Ordered::error_handler_t::replace));
  if (!text.ok()) return text.status().WithContext("messages");
  LEPTON_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, encoder_->EncodeStream(*text));
  if (ids.empty()) return InvalidArgument("chat_template: makes an empty text of the messages");
  if (static_cast<int64_t>(ids.size()) > context) {
    return InvalidArgument(fmt::format(
        "messages: {} tokens, but the context is {}: shorten them, or raise dataset.context as far "
        "as the model goes",
        ids.size(), context));
  }
  TokenText prompt;
  prompt.ids.assign(ids.begin(), ids.end());
  return prompt;
}

}  // namespace lepton::worker
