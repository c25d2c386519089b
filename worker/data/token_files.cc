// Layout of a file of rows: [rows] i64 ends, then the ids, then (pairs) a byte a token: its type.
#include "worker/data/token_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "runtime/base/thread_pool.h"

namespace lepton::worker {
namespace {

constexpr size_t kPieceBytes = size_t{4} << 20;
constexpr int64_t kRowsAtOnce = 4096;

int WidthOf(const TextEncoder& encoder) {
  return encoder.vocabulary() <= 65536 ? 2 : 4;
}

// Ids as they lie in a file.
template <typename Ids>
void AppendIds(const Ids& ids, int width, std::string* out) {
  for (const auto id : ids) {
    if (width == 2) {
      const auto narrow = static_cast<uint16_t>(id);
      out->append(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
    } else {
      const auto wide = static_cast<uint32_t>(id);
      out->append(reinterpret_cast<const char*>(&wide), sizeof(wide));
    }
  }
}

// Runs work(i) for [0, count) on the compute threads; the first error in order.
Status ForEach(int64_t count, const std::function<Status(int64_t)>& work) {
  std::vector<Status> statuses(count);
  ThreadPool::Compute().ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) statuses[i] = work(i);
  });
  for (Status& status : statuses) LEPTON_RETURN_IF_ERROR(std::move(status));
  return Status::Ok();
}

Status WriteStream(std::string_view text, const TextEncoder& encoder,
                   const PrepareProgress& progress, int fd) {
  const std::vector<std::string_view> pieces = CutText(text, kPieceBytes);
  const int width = WidthOf(encoder);
  const auto at_once = static_cast<size_t>(ThreadPool::Compute().threads());
  for (size_t first = 0; first < pieces.size(); first += at_once) {
    const size_t count = std::min(at_once, pieces.size() - first);
    progress("tokenising text", static_cast<uint64_t>(pieces[first].data() - text.data()),
             text.size());
    std::vector<std::string> encoded(count);
    LEPTON_RETURN_IF_ERROR(ForEach(static_cast<int64_t>(count), [&](int64_t i) {
      Result<std::vector<uint32_t>> ids = encoder.EncodeStream(pieces[first + i]);
      if (ids.ok()) AppendIds(*ids, width, &encoded[i]);
      return ids.status();
    }));
    for (const std::string& bytes : encoded) LEPTON_RETURN_IF_ERROR(WriteAll(fd, bytes));
  }
  return Status::Ok();
}

// A missing cell is an empty text.
std::string_view TextOf(const storage::Column& column, int64_t row) {
  return column.codes[row] < 0 ? std::string_view() : column.dictionary[column.codes[row]];
}

// Rows as a file has them, and the tokens of each.
struct RowsToWrite {
  int64_t rows = 0;
  int width = 4;
  bool types = false;
  std::function<Result<TokenText>(int64_t row)> encode;
};

Status WriteRows(const RowsToWrite& to_write, const PrepareProgress& progress, int fd) {
  const int64_t rows = to_write.rows;
  const int width = to_write.width;
  std::vector<int64_t> ends;
  std::string types;
  if (::lseek(fd, rows * static_cast<int64_t>(sizeof(int64_t)), SEEK_SET) < 0) {
    return ErrnoStatus(errno, "lseek");
  }
  int64_t total = 0;
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    progress("tokenising texts", static_cast<uint64_t>(first), static_cast<uint64_t>(rows));
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    std::vector<TokenText> encoded(count);
    LEPTON_RETURN_IF_ERROR(ForEach(count, [&](int64_t i) {
      const int64_t row = first + i;
      Result<TokenText> ids = to_write.encode(row);
      if (!ids.ok()) return ids.status().WithContext(fmt::format("row {}", row + 1));
      encoded[i] = *std::move(ids);
      return Status::Ok();
    }));
    std::string bytes;
    for (const TokenText& row : encoded) {
      AppendIds(row.ids, width, &bytes);
      total += static_cast<int64_t>(row.ids.size());
      ends.push_back(total);
      for (const int32_t type : row.types) types += static_cast<char>(type);
    }
    LEPTON_RETURN_IF_ERROR(WriteAll(fd, bytes));
  }
  if (to_write.types) LEPTON_RETURN_IF_ERROR(WriteAll(fd, types));
  if (::lseek(fd, 0, SEEK_SET) < 0) return ErrnoStatus(errno, "lseek");
  return WriteAll(fd, {reinterpret_cast<const char*>(ends.data()), ends.size() * sizeof(int64_t)});
}

Result<std::shared_ptr<const TokenRows>> OpenRows(const std::string& recipe,
                                                  const RowsToWrite& to_write,
                                                  DerivedFiles& derived,
                                                  const PrepareProgress& progress) {
  LEPTON_ASSIGN_OR_RETURN(const auto file, derived.Open(recipe, [&](int fd) {
    return WriteRows(to_write, progress, fd);
  }));
  const auto rows = static_cast<size_t>(to_write.rows);
  auto out = std::make_shared<TokenRows>();
  if (file->size() < rows * sizeof(int64_t)) return DataLoss("a file of tokens is cut short");
  const std::span<const int64_t> ends = file->As<int64_t>(0, rows);
  out->ends.assign(ends.begin(), ends.end());
  const int64_t total = rows == 0 ? 0 : ends.back();
  const int width = to_write.width;
  const uint64_t begin = rows * sizeof(int64_t);
  const uint64_t types = begin + static_cast<uint64_t>(total * width);
  if (file->size() != types + (to_write.types ? static_cast<uint64_t>(total) : 0)) {
    return DataLoss("a file of tokens has another size than its rows");
  }
  out->tokens = std::make_shared<const TokenStream>(file, width, begin, total);
  if (to_write.types) out->types = std::make_shared<const TokenStream>(file, 1, types, total);
  return std::shared_ptr<const TokenRows>(std::move(out));
}

}  // namespace

std::vector<std::string_view> CutText(std::string_view text, size_t bytes) {
  std::vector<std::string_view> pieces;
  while (text.size() > bytes) {
    // Behind the last newline that a word follows, so that no run of whitespace is cut; else behind
    // the last space before a word, else between characters.
    size_t cut = 0;
    for (const char mark : {'\n', ' '}) {
      for (size_t at = bytes; cut == 0 && at > bytes / 2; --at) {
        const char next = text[at];
        if (text[at - 1] == mark && next != '\n' && next != ' ' && next != '\t' && next != '\r') {
          cut = at - (mark == ' ');  // a space belongs to the word behind it
        }
      }
    }
    if (cut == 0) {
      cut = bytes;
      while (cut > 1 && (text[cut] & 0xC0) == 0x80) --cut;
    }
    pieces.push_back(text.substr(0, cut));
    text.remove_prefix(cut);
  }
  if (!text.empty()) pieces.push_back(text);
  return pieces;
}

Result<std::shared_ptr<const TokenStream>> TokensOfText(const storage::ObjectStore& objects,
                                                        const storage::Digest& text,
                                                        const TextEncoder& encoder,
                                                        DerivedFiles& derived,
                                                        const PrepareProgress& progress) {
  LEPTON_ASSIGN_OR_RETURN(MappedFile source, objects.Map(text, /*verify=*/false));
  if (encoder.bytes()) {
    const auto size = static_cast<int64_t>(source.size());
    return std::make_shared<const TokenStream>(
        std::make_shared<const MappedFile>(std::move(source)), 1, 0, size);
  }
  const std::string recipe = fmt::format("tokens 2 {} {}", text, encoder.name());
  LEPTON_ASSIGN_OR_RETURN(const auto file, derived.Open(recipe, [&](int fd) {
    return WriteStream(source.bytes(), encoder, progress, fd);
  }));
  const int width = WidthOf(encoder);
  return std::make_shared<const TokenStream>(file, width, 0,
                                             static_cast<int64_t>(file->size()) / width);
}

Result<std::shared_ptr<const TokenRows>> TokensOfRows(const storage::Digest& table,
                                                      const storage::Column& text,
                                                      const storage::Column* pair,
                                                      const TextEncoder& encoder, int64_t context,
                                                      DerivedFiles& derived,
                                                      const PrepareProgress& progress) {
  RowsToWrite to_write{static_cast<int64_t>(text.codes.size()), WidthOf(encoder), pair != nullptr};
  to_write.encode = [&](int64_t row) {
    return pair == nullptr ? encoder.EncodeText(TextOf(text, row), context)
                           : encoder.EncodePair(TextOf(text, row), TextOf(*pair, row), context);
  };
  return OpenRows(
      fmt::format("text rows 2 {} {} {} {}\n{}\n{}", table, encoder.name(), context,
                  pair == nullptr ? 1 : 2, text.name, pair == nullptr ? "" : pair->name),
      to_write, derived, progress);
}

Result<std::shared_ptr<const TokenRows>> TokensOfChats(const storage::Digest& table,
                                                       const storage::Column& chats,
                                                       const ChatPrompts& prompts,
                                                       const TextEncoder& encoder, int64_t context,
                                                       DerivedFiles& derived,
                                                       const PrepareProgress& progress) {
  RowsToWrite to_write{static_cast<int64_t>(chats.codes.size()), WidthOf(encoder)};
  to_write.encode = [&](int64_t row) { return prompts.Encode(TextOf(chats, row), context); };
  return OpenRows(
      fmt::format("chat rows 1 {} {}\n{}\n{}", table, context, chats.name, prompts.recipe()),
      to_write, derived, progress);
}

}  // namespace lepton::worker
