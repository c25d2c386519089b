#include "runtime/formats/tokenizer/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "runtime/base/file.h"
#include "runtime/base/utf8.h"
#include "runtime/formats/tokenizer/definition.h"
#include "runtime/formats/tokenizer/gpt2_scanner.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kIdleWorkspaces = 16;

// Spans in bytes become offsets in code points: the index of the code point that holds the first
// byte, and one more than that of the one that holds the last.
class CodePointCounter {
 public:
  explicit CodePointCounter(std::string_view text) : ascii_(IsAscii(text)) {
    if (ascii_) return;
    index_.reserve(text.size());
    uint32_t next = 0;
    for (char c : text) {
      if ((c & 0xC0) != 0x80) ++next;
      index_.push_back(next - 1);
    }
  }
  Offsets Convert(Span span) const {
    if (ascii_ || span.begin >= span.end) return {span.begin, span.end};
    return {index_[span.begin], index_[span.end - 1] + 1};
  }

 private:
  bool ascii_;
  std::vector<uint32_t> index_;
};

// Lends workspaces to calls, so that each has a warm cache of its own without a lock per word.
class WorkspacePool {
 public:
  std::unique_ptr<Workspace> Take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Workspace>();
    std::unique_ptr<Workspace> workspace = std::move(idle_.back());
    idle_.pop_back();
    return workspace;
  }
  void Return(std::unique_ptr<Workspace> workspace) {
    if (workspace->parts.capacity() > 4096) workspace->parts = {};
    std::lock_guard lock(mutex_);
    if (idle_.size() < kIdleWorkspaces) idle_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

class Lease {
 public:
  explicit Lease(WorkspacePool& pool) : pool_(pool), workspace_(pool.Take()) {}
  ~Lease() { pool_.Return(std::move(workspace_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Workspace& operator*() { return *workspace_; }

 private:
  WorkspacePool& pool_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace

struct Tokenizer::Impl {
  Definition definition;
  AddedTokens added;
  uint32_t vocab_size = 0;
  mutable WorkspacePool pool;

  // sink(parts of `piece`) for each piece that a model saw, or that is an added token.
  template <typename Sink>
  Status Run(std::string_view text, Workspace& workspace, Sink sink) const;
  Status PreTokenize(std::vector<Piece>& pieces, TextArena& arena) const;
  Result<Encoding> Encode(std::string_view text) const;
  std::optional<std::string_view> Token(uint32_t id) const;
  static Status Check(std::string_view text);
};

Status Tokenizer::Impl::Check(std::string_view text) {
  if (text.size() > kMaxTextBytes) return InvalidArgument("text: over 1 GiB; encode it in parts");
  if (auto at = InvalidUtf8At(text)) {
    return InvalidArgument("text: not UTF-8 at byte " + std::to_string(*at));
  }
  return {};
}

Status Tokenizer::Impl::PreTokenize(std::vector<Piece>& pieces, TextArena& arena) const {
  std::vector<Piece> next;
  for (const PreTokenizerPtr& step : definition.pre_tokenizers) {
    next.clear();
    next.reserve(pieces.size());
    for (const Piece& piece : pieces) {
      if (piece.token >= 0) {
        next.push_back(piece);
      } else if (!piece.text.empty()) {
        LEPTON_RETURN_IF_ERROR(step->Apply(piece, arena, next));
      }
    }
    pieces.swap(next);
  }
  return {};
}

template <typename Sink>
Status Tokenizer::Impl::Run(std::string_view text, Workspace& workspace, Sink sink) const {
  LEPTON_RETURN_IF_ERROR(Check(text));
  TextArena arena(text.size());
  std::vector<Piece> pieces;
  LEPTON_RETURN_IF_ERROR(added.Split(text, definition.normalizer.get(), arena, pieces));
  if (!definition.scans_gpt2) LEPTON_RETURN_IF_ERROR(PreTokenize(pieces, arena));
  std::vector<Part>& parts = workspace.parts;
  Status status;
  auto tokenize = [&](const Piece& piece) {
    parts.clear();
    status = definition.model->Tokenize(piece.text, workspace, parts);
    if (status.ok()) sink(piece, parts);
  };
  for (const Piece& piece : pieces) {
    if (piece.token >= 0) {
      parts.assign(
          1, {static_cast<uint32_t>(piece.token), 0, static_cast<uint32_t>(piece.text.size())});
      sink(piece, parts);
    } else if (!definition.scans_gpt2) {
      tokenize(piece);
    } else {
      Piece now = piece;
      if (definition.gpt2_prefix_space && !now.text.starts_with(' ')) {
        LEPTON_ASSIGN_OR_RETURN(now, Prepend(now, " ", arena));
      }
      ScanGpt2(now.text, [&](size_t begin, size_t end) {
        if (status.ok()) tokenize(now.Sub(begin, end));
      });
    }
    LEPTON_RETURN_IF_ERROR(status);
  }
  return {};
}

Result<Encoding> Tokenizer::Impl::Encode(std::string_view text) const {
  Encoding out;
  size_t guess = text.size() / 3 + 16;
  out.ids.reserve(guess);
  out.tokens.reserve(guess);
  out.offsets.reserve(guess);
  Lease lease(pool);
  const Model& model = *definition.model;
  LEPTON_RETURN_IF_ERROR(Run(text, *lease, [&](const Piece& piece, const std::vector<Part>& parts) {
    for (const Part& part : parts) {
      out.ids.push_back(part.id);
      if (piece.token < 0 && model.shows_text(part.id)) {
        out.tokens.emplace_back(piece.text.substr(part.begin, part.end - part.begin));
      } else {
        out.tokens.emplace_back(Token(part.id).value_or(std::string_view()));
      }
      Span origin = piece.Origin(part.begin, part.end);
      out.offsets.push_back({origin.begin, origin.end});
    }
  }));
  CodePointCounter counter(text);
  for (Offsets& offsets : out.offsets) offsets = counter.Convert({offsets.begin, offsets.end});
  return out;
}

std::optional<std::string_view> Tokenizer::Impl::Token(uint32_t id) const {
  if (auto token = definition.model->vocabulary().Token(id)) return token;
  if (const AddedToken* token = added.Find(id)) return token->content;
  return std::nullopt;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view json) {
  if (json.size() > kMaxFileBytes) return InvalidArgument("tokenizer.json: over 256 MiB");
  auto impl = std::make_unique<Impl>();
  auto definition = ReadDefinition(json);
  if (!definition.ok()) return definition.status().WithContext("tokenizer.json");
  impl->definition = std::move(definition).value();
  Status status = impl->added.Prepare(std::move(impl->definition.added_tokens),
                                      impl->definition.normalizer.get());
  if (!status.ok()) return status.WithContext("tokenizer.json");
  impl->vocab_size = std::max(impl->definition.model->vocabulary().size(), impl->added.id_end());
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(const std::filesystem::path& path) {
  LEPTON_ASSIGN_OR_RETURN(std::string json, ReadFile(path, kMaxFileBytes));
  auto tokenizer = FromJson(json);
  if (!tokenizer.ok()) return tokenizer.status().WithContext(path.string());
  return tokenizer;
}

Result<Encoding> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::vector<Encoding> encodings(1);
  LEPTON_ASSIGN_OR_RETURN(encodings[0], impl_->Encode(text));
  return impl_->definition.post_processor.Apply(std::move(encodings), add_special_tokens);
}

Result<Encoding> Tokenizer::EncodePair(std::string_view first, std::string_view second,
                                       bool add_special_tokens) const {
  std::vector<Encoding> encodings(2);
  LEPTON_ASSIGN_OR_RETURN(encodings[0], impl_->Encode(first));
  LEPTON_ASSIGN_OR_RETURN(encodings[1], impl_->Encode(second));
  return impl_->definition.post_processor.Apply(std::move(encodings), add_special_tokens);
}

Result<std::vector<uint32_t>> Tokenizer::EncodeIds(std::string_view text,
                                                   bool add_special_tokens) const {
  std::vector<uint32_t> ids;
  ids.reserve(text.size() / 3 + 16);
  Lease lease(impl_->pool);
  LEPTON_RETURN_IF_ERROR(
      impl_->Run(text, *lease, [&](const Piece&, const std::vector<Part>& parts) {
        for (const Part& part : parts) ids.push_back(part.id);
      }));
  return impl_->definition.post_processor.ApplyIds(std::move(ids), add_special_tokens);
}

Result<std::string> Tokenizer::Decode(const std::vector<uint32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (uint32_t id : ids) {
    if (skip_special && IsSpecial(id)) continue;
    if (auto token = impl_->Token(id)) tokens.emplace_back(*token);
  }
  const DecoderPtr& decoder = impl_->definition.decoder;
  if (decoder) LEPTON_RETURN_IF_ERROR(decoder->Apply(tokens));
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !decoder) text += ' ';
    text += tokens[i];
  }
  return text;
}

uint32_t Tokenizer::vocab_size() const {
  return impl_->vocab_size;
}

std::optional<uint32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (const AddedToken* added = impl_->added.Find(token)) return added->id;
  return impl_->definition.model->vocabulary().Find(token);
}

std::optional<std::string> Tokenizer::IdToToken(uint32_t id) const {
  auto token = impl_->Token(id);
  if (!token) return std::nullopt;
  return std::string(*token);
}

bool Tokenizer::IsSpecial(uint32_t id) const {
  const AddedToken* token = impl_->added.Find(id);
  return token && token->special;
}

const std::optional<Truncation>& Tokenizer::truncation() const {
  return impl_->definition.truncation;
}

const std::optional<Padding>& Tokenizer::padding() const {
  return impl_->definition.padding;
}

}  // namespace lepton::tokenizer
