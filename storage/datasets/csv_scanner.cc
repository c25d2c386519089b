#include "storage/datasets/csv_scanner.h"

#include <algorithm>
#include <cstring>

namespace lepton::storage {

CsvScanner::CsvScanner(std::string_view bytes, const CsvOptions& options)
    : at_(bytes.data()), end_(bytes.data() + bytes.size()), options_(options) {
  if (bytes.starts_with("\xEF\xBB\xBF")) at_ += 3;
}

Status CsvScanner::Error(int64_t line, const std::string& what) const {
  return InvalidArgument("line " + std::to_string(line) + ": " + what);
}

Result<bool> CsvScanner::Next(std::vector<std::string_view>* fields) {
  fields->clear();
  unescaped_.clear();
  if (at_ == end_) return false;
  row_line_ = line_;
  for (;;) {
    std::string_view field;
    const bool quoted = at_ != end_ && *at_ == '"';
    LEPTON_RETURN_IF_ERROR(quoted ? ReadQuoted(&field) : ReadPlain(&field));
    if (static_cast<int64_t>(field.size()) > options_.max_field_bytes) {
      return Error(row_line_, "field " + std::to_string(fields->size() + 1) + " has " +
                                  std::to_string(field.size()) + " bytes; the limit is " +
                                  std::to_string(options_.max_field_bytes));
    }
    fields->push_back(field);
    if (static_cast<int64_t>(fields->size()) > options_.max_columns) {
      return Error(row_line_, "more than " + std::to_string(options_.max_columns) + " fields");
    }
    LEPTON_ASSIGN_OR_RETURN(const After after, ReadSeparator());
    if (after == After::kRow) return true;
  }
}

Status CsvScanner::ReadPlain(std::string_view* field) {
  const char* const begin = at_;
  const char delimiter = options_.delimiter;
  while (at_ != end_ && *at_ != delimiter && *at_ != '\n' && *at_ != '\r') {
    if (*at_ == '"') {
      return Error(line_, "a quote inside an unquoted field: quote the whole field and double it");
    }
    ++at_;
  }
  *field = {begin, static_cast<size_t>(at_ - begin)};
  return Status::Ok();
}

Status CsvScanner::ReadQuoted(std::string_view* field) {
  const int64_t opened = line_;
  const char* begin = ++at_;
  std::string* copy = nullptr;
  for (;;) {
    const void* quote = std::memchr(at_, '"', static_cast<size_t>(end_ - at_));
    if (quote == nullptr) return Error(opened, "a quote that is opened here is never closed");
    const char* const closing = static_cast<const char*>(quote);
    line_ += std::count(at_, closing, '\n');
    at_ = closing + 1;
    const std::string_view piece(begin, static_cast<size_t>(closing - begin));
    const bool doubled = at_ != end_ && *at_ == '"';
    if (!doubled) {
      if (copy != nullptr) copy->append(piece);
      *field = copy != nullptr ? std::string_view(*copy) : piece;
      return Status::Ok();
    }
    if (copy == nullptr) copy = &unescaped_.emplace_back();
    copy->append(piece).push_back('"');
    begin = ++at_;
  }
}

Result<CsvScanner::After> CsvScanner::ReadSeparator() {
  if (at_ == end_) return After::kRow;
  if (*at_ == options_.delimiter) {
    ++at_;
    return After::kField;
  }
  if (*at_ == '\r') {
    if (at_ + 1 == end_ || at_[1] != '\n') {
      return Error(line_, "a carriage return that no newline follows");
    }
    ++at_;
  }
  if (*at_ == '\n') {
    ++at_;
    ++line_;
    return After::kRow;
  }
  return Error(line_, "text after a closing quote");
}

namespace {

// Length of the UTF-8 sequence at `p`, 0 if it is none (overlong, surrogate, out of range, cut).
size_t SequenceLength(const unsigned char* p, size_t left) {
  const auto tail = [&](size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < left && p[i] >= low && p[i] <= high;
  };
  const unsigned c = p[0];
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return tail(1) ? 2 : 0;
  if (c >= 0xE0 && c <= 0xEF) {
    const bool second = tail(1, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF);
    return second && tail(2) ? 3 : 0;
  }
  if (c >= 0xF0 && c <= 0xF4) {
    const bool second = tail(1, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// True when the eight bytes are ASCII and none is zero.
bool EightPlainBytes(const unsigned char* p) {
  constexpr uint64_t kHigh = 0x8080808080808080u, kLow = 0x0101010101010101u;
  uint64_t word;
  std::memcpy(&word, p, 8);
  return ((word | (word - kLow)) & kHigh) == 0;
}

}  // namespace

Status CheckUtf8(std::string_view bytes) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  size_t at = 0;
  while (at < bytes.size()) {
    if (at + 8 <= bytes.size() && EightPlainBytes(p + at)) {
      at += 8;
      continue;
    }
    const size_t length = SequenceLength(p + at, bytes.size() - at);
    if (length == 0 || p[at] == 0) {
      const auto line = 1 + std::count(bytes.begin(), bytes.begin() + static_cast<long>(at), '\n');
      const std::string what = p[at] == 0 ? "a zero byte: is this UTF-16?"
                                          : "bytes that are not UTF-8: convert the file";
      return InvalidArgument("line " + std::to_string(line) + ": " + what);
    }
    at += length;
  }
  return Status::Ok();
}

}  // namespace lepton::storage
