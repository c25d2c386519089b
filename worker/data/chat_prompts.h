// Chats into what a language model goes on from: the model's chat template makes a text of the
// messages, and the tokenizer tokens of that, special ones included. As transformers'
// apply_chat_template does it, nothing is added besides what the template writes.
// Threads: immutable; any. Ownership: shared with the encoder's data.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "runtime/formats/tokenizer/chat_template.h"
#include "storage/models/model_manifest.h"
#include "worker/data/text_encoder.h"

namespace lepton::worker {

class ChatPrompts {
 public:
  // By the model's files: chat_template.jinja, else the chat_template of tokenizer_config.json (the
  // one named default, where there are several). kInvalidArgument for a model without, or one that
  // cannot be read.
  static Result<std::shared_ptr<const ChatPrompts>> Load(
      const storage::ObjectStore& objects, const storage::ModelManifest& model,
      std::shared_ptr<const TextEncoder> encoder);

  // A chat: a JSON list of {role, content} and what else the template reads of a message, or an
  // object that has such a list under "messages". kInvalidArgument for anything else, for what the
  // template raises, and for more than `context` tokens.
  Result<TokenText> Encode(std::string_view chat, int64_t context) const;
  // What the prompts follow from besides the chats, as text.
  const std::string& recipe() const { return recipe_; }

 private:
  ChatPrompts() = default;
  std::shared_ptr<const TextEncoder> encoder_;
  std::unique_ptr<tokenizer::ChatTemplate> template_;
  std::string special_tokens_;  // a JSON object: bos_token, ...
  std::string recipe_;
};

}  // namespace lepton::worker
