#include "runtime/formats/tokenizer/decoder.h"

#include <algorithm>
#include <functional>

#include "runtime/base/utf8.h"
#include "runtime/formats/tokenizer/normalizer.h"
#include "runtime/formats/tokenizer/unicode.h"

namespace lepton::tokenizer {
namespace {

constexpr size_t kMaxDecodedBytes = size_t{1} << 30;

class FunctionDecoder : public Decoder {
 public:
  explicit FunctionDecoder(std::function<Status(std::vector<std::string>&)> apply)
      : apply_(std::move(apply)) {}
  Status Apply(std::vector<std::string>& tokens) const override { return apply_(tokens); }

 private:
  std::function<Status(std::vector<std::string>&)> apply_;
};

DecoderPtr Make(std::function<Status(std::vector<std::string>&)> apply) {
  return std::make_unique<FunctionDecoder>(std::move(apply));
}

std::string Join(const std::vector<std::string>& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  return all;
}

std::string ReplaceAll(const std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done);
    out += to;
    done = at + from.size();
  }
  out.append(text, done);
  return out;
}

// The reference's list (English spacing), in its order.
std::string CleanUp(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kRules) text = ReplaceAll(text, from, to);
  return text;
}

int FallbackByte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (char c : {token[3], token[4]}) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                       : -1;
    if (digit < 0) return -1;
    byte = byte * 16 + digit;
  }
  return byte;
}

void FlushBytes(std::string& bytes, std::vector<std::string>& out) {
  if (bytes.empty()) return;
  if (!InvalidUtf8At(bytes)) {
    out.push_back(bytes);
  } else {
    out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
  }
  bytes.clear();
}

std::string StripToken(const std::string& token, char32_t content, uint32_t start, uint32_t stop) {
  std::u32string chars = ToCodePoints(token);
  size_t begin = 0, end = chars.size();
  while (begin < std::min<size_t>(start, chars.size()) && chars[begin] == content) ++begin;
  for (size_t i = 0; i < stop && end > begin && chars[end - 1] == content; ++i) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) AppendUtf8(chars[i], out);
  return out;
}

}  // namespace

DecoderPtr MakeByteLevelDecoder() {
  return Make([](std::vector<std::string>& tokens) {
    std::string bytes, mapped;
    for (const std::string& token : tokens) {
      mapped.clear();
      bool maps = true;
      for (size_t at = 0; at < token.size() && maps;) {
        int byte = CharToByte(NextCodePoint(token, at));
        maps = byte >= 0;
        if (maps) mapped += static_cast<char>(byte);
      }
      bytes += maps ? mapped : token;
    }
    tokens = {ReplaceInvalidUtf8(bytes)};
    return Status::Ok();
  });
}

DecoderPtr MakeWordPieceDecoder(std::string prefix, bool cleanup) {
  return Make([prefix = std::move(prefix), cleanup](std::vector<std::string>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) {
        if (tokens[i].starts_with(prefix)) {
          tokens[i].erase(0, prefix.size());
        } else {
          tokens[i].insert(0, " ");
        }
      }
      if (cleanup) tokens[i] = CleanUp(std::move(tokens[i]));
    }
    return Status::Ok();
  });
}

DecoderPtr MakeMetaspaceDecoder(char32_t replacement, bool drops_first) {
  return Make([mark = ToUtf8(replacement), drops_first](std::vector<std::string>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = ReplaceAll(tokens[i], mark, i == 0 && drops_first ? "" : " ");
    }
    return Status::Ok();
  });
}

DecoderPtr MakeBpeDecoder(std::string suffix) {
  return Make([suffix = std::move(suffix)](std::vector<std::string>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = ReplaceAll(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
    }
    return Status::Ok();
  });
}

DecoderPtr MakeReplaceDecoder(std::string pattern, std::unique_ptr<Regex> regex,
                              std::string content) {
  std::shared_ptr<Regex> shared = std::move(regex);  // std::function wants to be copied
  return Make([pattern = std::move(pattern), shared,
               content = std::move(content)](std::vector<std::string>& tokens) -> Status {
    std::vector<Span> matches;
    size_t total = 0;
    for (std::string& token : tokens) {
      if (shared) {
        LEPTON_RETURN_IF_ERROR(shared->FindAll(token, matches));
      } else {
        FindAllPlain(token, pattern, matches);
      }
      total += token.size() + matches.size() * content.size();
      if (total > kMaxDecodedBytes) return ResourceExhausted("the decoded text is too long");
      if (matches.empty()) continue;
      std::string out;
      size_t done = 0;
      for (Span match : matches) {
        out.append(token, done, match.begin - done);
        out += content;
        done = match.end;
      }
      out.append(token, done);
      token = std::move(out);
    }
    return {};
  });
}

DecoderPtr MakeFuseDecoder() {
  return Make([](std::vector<std::string>& tokens) {
    tokens = {Join(tokens)};
    return Status::Ok();
  });
}

DecoderPtr MakeStripDecoder(char32_t content, uint32_t start, uint32_t stop) {
  return Make([=](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) token = StripToken(token, content, start, stop);
    return Status::Ok();
  });
}

DecoderPtr MakeByteFallbackDecoder() {
  return Make([](std::vector<std::string>& tokens) {
    std::vector<std::string> out;
    std::string bytes;
    for (std::string& token : tokens) {
      int byte = FallbackByte(token);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
        continue;
      }
      FlushBytes(bytes, out);
      out.push_back(std::move(token));
    }
    FlushBytes(bytes, out);
    tokens = std::move(out);
    return Status::Ok();
  });
}

DecoderPtr MakeDecoderSequence(std::vector<DecoderPtr> all) {
  auto shared = std::make_shared<std::vector<DecoderPtr>>(std::move(all));
  return Make([shared](std::vector<std::string>& tokens) -> Status {
    for (const DecoderPtr& one : *shared) LEPTON_RETURN_IF_ERROR(one->Apply(tokens));
    return {};
  });
}

}  // namespace lepton::tokenizer
