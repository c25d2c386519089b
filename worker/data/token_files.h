// Texts as derived files of token ids: a text file as one stream, the texts of a table one after
// another. Files are tokenised in pieces, several at once, so memory does not grow with the text.
// Threads: as of DerivedFiles.
#pragma once

#include <functional>
#include <string_view>

#include "storage/datasets/table.h"
#include "worker/data/chat_prompts.h"
#include "worker/data/derived_file.h"
#include "worker/data/text_encoder.h"
#include "worker/data/text_rows.h"
#include "worker/data/token_stream.h"

namespace lepton::worker {

// How far a preparation is, on the thread that makes it.
using PrepareProgress = std::function<void(std::string_view phase, uint64_t done, uint64_t total)>;

// The tokens of a text object. A text of bytes is the object itself. Other texts are cut into
// pieces of about 4 MiB at the ends of lines; up to that size the ids are those of the whole text,
// and beyond it too for tokenizers that cut at whitespace.
Result<std::shared_ptr<const TokenStream>> TokensOfText(const storage::ObjectStore& objects,
                                                        const storage::Digest& text,
                                                        const TextEncoder& encoder,
                                                        DerivedFiles& derived,
                                                        const PrepareProgress& progress);

// The rows of one or two text columns (`pair` may be null) of a table object, by row number.
Result<std::shared_ptr<const TokenRows>> TokensOfRows(const storage::Digest& table,
                                                      const storage::Column& text,
                                                      const storage::Column* pair,
                                                      const TextEncoder& encoder, int64_t context,
                                                      DerivedFiles& derived,
                                                      const PrepareProgress& progress);

// The prompts of a column of chats of a table object, by row number.
Result<std::shared_ptr<const TokenRows>> TokensOfChats(const storage::Digest& table,
                                                       const storage::Column& chats,
                                                       const ChatPrompts& prompts,
                                                       const TextEncoder& encoder, int64_t context,
                                                       DerivedFiles& derived,
                                                       const PrepareProgress& progress);

// The pieces that TokensOfText cuts a text into, of about `bytes` each. For tests.
std::vector<std::string_view> CutText(std::string_view text, size_t bytes);

}  // namespace lepton::worker
