// Token ids that were made elsewhere: a raw little-endian u16 or u32 file (nanoGPT's .bin), or a
// safetensors file with one list of integers. They are stored as the ids alone, so that a task maps
// them as an array.
#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/formats/safetensors/safetensors.h"
#include "storage/datasets/formats.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

static_assert(std::endian::native == std::endian::little, "ids are stored little-endian");

// Ids from the source on into the store, converted and measured on the way.
class TokenSink {
 public:
  TokenSink(ObjectStore::Writer& writer) : writer_(writer) {}

  // `bytes` is a whole number of `From`s; each becomes a `To`.
  template <typename From, typename To>
  Status Add(std::string_view bytes) {
    out_.resize(bytes.size() / sizeof(From) * sizeof(To));
    for (size_t i = 0; i < bytes.size() / sizeof(From); ++i) {
      From from;
      std::memcpy(&from, bytes.data() + i * sizeof(From), sizeof(From));
      const To to = static_cast<To>(from);
      if (static_cast<From>(to) != from || uint64_t{to} > uint64_t{INT32_MAX} ||
          (std::is_signed_v<From> && from < From{0})) {
        return InvalidArgument("token " + std::to_string(count_) + " is " + std::to_string(from) +
                               ": ids go from 0 to 2147483647");
      }
      if (count_ == 0 || int64_t{to} > max_) max_ = to, max_at_ = count_;
      ++count_;
      std::memcpy(&out_[i * sizeof(To)], &to, sizeof(To));
    }
    return writer_.Append(out_);
  }
  int64_t count() const { return count_; }
  int64_t max() const { return max_; }
  int64_t max_at() const { return max_at_; }

 private:
  ObjectStore::Writer& writer_;
  std::string out_;
  int64_t count_ = 0, max_ = 0, max_at_ = 0;
};

using AddFunction = Status (TokenSink::*)(std::string_view);
struct TokenType {
  std::string_view name;  // safetensors' dtype
  size_t bytes;
  int64_t stored_bytes;
  AddFunction add;
};
constexpr TokenType kTypes[] = {
    {"U16", 2, 2, &TokenSink::Add<uint16_t, uint16_t>},
    {"U32", 4, 4, &TokenSink::Add<uint32_t, uint32_t>},
    {"I16", 2, 2, &TokenSink::Add<int16_t, uint16_t>},
    {"I32", 4, 4, &TokenSink::Add<int32_t, uint32_t>},
    {"I64", 8, 4, &TokenSink::Add<int64_t, uint32_t>},
    {"U8", 1, 2, &TokenSink::Add<uint8_t, uint16_t>},
};

const TokenType* FindType(std::string_view name) {
  for (const TokenType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

struct TokenLayout {
  const TokenType* type = nullptr;
  uint64_t begin = 0, bytes = 0;  // of the ids within the file
};

Result<TokenLayout> RawLayout(uint64_t size, const std::string& token_type) {
  const TokenType* type = FindType(token_type == "u32" ? "U32" : "U16");
  if (size % type->bytes != 0) {
    return InvalidArgument("has " + std::to_string(size) + " bytes, which is no whole number of " +
                           std::to_string(type->bytes) + "-byte ids: is token_type right?");
  }
  return TokenLayout{type, 0, size};
}

// From the header alone, so that the file need not fit into memory.
Result<TokenLayout> SafetensorsLayout(ByteSource& source) {
  constexpr size_t kMaxHeader = size_t{1} << 20;
  LEPTON_ASSIGN_OR_RETURN(const std::string start, source.Peek(kMaxHeader));
  LEPTON_ASSIGN_OR_RETURN(const auto header, safetensors::ParseLayout(start, source.size()));
  if (header.tensors.size() != 1) {
    return InvalidArgument("a safetensors file of tokens must hold one tensor, but has " +
                           std::to_string(header.tensors.size()));
  }
  const safetensors::TensorPlace& tensor = header.tensors[0];
  const TokenType* type = FindType(tensor.dtype);
  if (type == nullptr || tensor.shape.size() != 1) {
    return InvalidArgument("tensor \"" + tensor.name + "\" is " + tensor.dtype + " with " +
                           std::to_string(tensor.shape.size()) +
                           " dimensions; tokens are one list of U8, U16, U32, I16, I32 or I64");
  }
  return TokenLayout{type, tensor.begin, tensor.end - tensor.begin};
}

Status CopyTokens(ByteSource& source, const TokenLayout& layout, const ImportOptions& options,
                  TokenSink& sink) {
  uint64_t at = 0;
  std::string carry;
  while (at < layout.begin + layout.bytes) {
    LEPTON_ASSIGN_OR_RETURN(std::string_view piece, source.Next());
    if (piece.empty()) return InvalidArgument("the file is cut short");
    const uint64_t begin = at;
    at += piece.size();
    LEPTON_RETURN_IF_ERROR(ReportProgress(options, "reading tokens", at, source.size()));
    if (begin < layout.begin) {
      piece.remove_prefix(std::min<uint64_t>(piece.size(), layout.begin - begin));
    }
    const uint64_t end = layout.begin + layout.bytes;
    if (at > end) piece.remove_suffix(std::min<uint64_t>(piece.size(), at - end));
    carry += piece;
    const size_t whole = carry.size() / layout.type->bytes * layout.type->bytes;
    LEPTON_RETURN_IF_ERROR((sink.*layout.type->add)(std::string_view(carry).substr(0, whole)));
    carry.erase(0, whole);
  }
  return Status::Ok();
}

}  // namespace

Result<DatasetManifest> ImportTokensFile(ObjectStore& objects, ByteSource& source,
                                         const ImportOptions& options) {
  if (source.size() > options.limits.stream_bytes) {
    return ResourceExhausted("has " + std::to_string(source.size()) + " bytes; the limit is " +
                             std::to_string(options.limits.stream_bytes));
  }
  // A safetensors file begins with its header's length, then "{".
  LEPTON_ASSIGN_OR_RETURN(const std::string start, source.Peek(9));
  const bool header = options.path.ends_with(".safetensors") ||
                      (options.token_type == "auto" && start.size() == 9 && start[8] == '{' &&
                       start.substr(4, 4) == std::string(4, '\0'));
  LEPTON_ASSIGN_OR_RETURN(
      const TokenLayout layout,
      header ? SafetensorsLayout(source) : RawLayout(source.size(), options.token_type));
  LEPTON_ASSIGN_OR_RETURN(const auto writer, objects.NewObject());
  TokenSink sink(*writer);
  LEPTON_RETURN_IF_ERROR(CopyTokens(source, layout, options, sink));
  if (sink.count() == 0) return InvalidArgument("there are no tokens");

  DatasetManifest manifest;
  manifest.kind = DatasetKind::kTokens;
  manifest.rows = sink.count();
  manifest.token_bytes = layout.type->stored_bytes;
  manifest.max_token = sink.max();
  manifest.max_token_at = sink.max_at();
  const nlohmann::json profile = {{"rows", sink.count()},
                                  {"tokens", sink.count()},
                                  {"type", manifest.token_bytes == 2 ? "u16" : "u32"},
                                  {"max", sink.max()},
                                  {"max_at", sink.max_at()}};
  manifest.profile_json = DumpManifest(profile);
  LEPTON_ASSIGN_OR_RETURN(manifest.source, writer->Finish());
  return manifest;
}

}  // namespace lepton::storage
