// Chat templates: the subset of Jinja that tokenizer_config.json's templates are written in, with
// the settings of the transformers library (trim_blocks, lstrip_blocks).
//   statements   set (also of a namespace's attribute), for (unpacking, `if`), if/elif/else
//   expressions  literals, lists, dicts, == != < <= > >= in, and or not, + - * // % ~, a if b else
//   c,
//                x.y x[y] x[a:b:c], calls of namespace, raise_exception and a few string and dict
//                methods
//   loop         index index0 revindex revindex0 first last length
//   tests        defined undefined none string number mapping iterable sequence boolean true false
//                equalto eq ne in odd even
//   filters      trim upper lower length count default d tojson join string first last items list
//                select reject selectattr rejectattr map
// `tools` and `documents` are none where they are not given, as that library passes them. Its
// `strftime_now` is not there, so that a prompt is the same on every day: a template that asks for
// it takes the date that it has in its place (Llama 3.2's "26 Jul 2024").
// What is undefined has no items, and looking into it is an error, as there. A list of select, map
// and the like is lazy there, which is the same but in one place: kept under a name and asked
// whether it is true it always is; here it is so when it has items.
// Anything else is an error with its line: another statement when the template is parsed, another
// filter, test, function or method only where one is evaluated, since templates have branches for
// tools that no chat here takes.
// Threads: immutable after Parse. Hostile templates: nesting, steps and bytes are limited.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

class ChatTemplate {
 public:
  // kInvalidArgument: "line 3: ...".
  static Result<std::unique_ptr<ChatTemplate>> Parse(std::string_view source);
  ~ChatTemplate();
  // `variables_json`: a JSON object such as {"messages": [{"role": "user", "content": "hi"}],
  // "add_generation_prompt": true, "bos_token": "<s>"}. kInvalidArgument for what the template
  // raises or cannot evaluate; kResourceExhausted beyond the limits.
  Result<std::string> Render(std::string_view variables_json) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lepton::tokenizer
