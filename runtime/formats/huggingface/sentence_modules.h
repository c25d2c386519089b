// What a folder of sentence-transformers has behind its body: modules.json, which names the
// modules, the pooling's config.json in a folder of its own, sentence_bert_config.json. Together
// they say how a text's one row of numbers is made of its tokens' hidden states.
// Private to this folder. Threads: pure functions; reading blocks on the disk.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/formats/huggingface/folder.h"

namespace lepton::huggingface {

inline constexpr char kModules[] = "modules.json";

// Takes what they say into the folder's model, whose config has been read: nothing, if there are no
// modules or the model is a classifier. kInvalidArgument names the file and what is not supported.
Status ReadSentenceModules(const OpenFile& open, Folder& folder);

}  // namespace lepton::huggingface
