// JSON Lines into a table: one object a line, a column a key. Each line runs through the parser's
// events straight into the columns, so that no document is built but of a chat's messages. Columns
// that turn out as text after numbers are filled by a second pass over the bytes.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "storage/datasets/column_builder.h"
#include "storage/datasets/csv_scanner.h"
#include "storage/datasets/table.h"

namespace lepton::storage {
namespace {

using nlohmann::json;
constexpr int64_t kExactIntegers = int64_t{1} << 53;

// The columns in the order in which their keys came first.
class Columns {
 public:
  Columns(const CsvOptions& options, size_t bytes)
      : options_(options), most_cells_(options.spare_cells + 4 * static_cast<int64_t>(bytes)) {}

  // The place of a key's column; a new one starts with missing cells. Rows tend to have the same
  // keys in the same order: `guess` is tried first.
  Result<size_t> Find(const std::string& key, size_t guess) {
    if (guess < builders_.size() && builders_[guess].name() == key) return guess;
    const auto [at, fresh] = places_.emplace(key, builders_.size());
    if (!fresh) return at->second;
    if (key.empty()) return InvalidArgument("a key is empty: columns need names");
    if (static_cast<int64_t>(builders_.size()) >= options_.max_columns) {
      return InvalidArgument("more than " + std::to_string(options_.max_columns) + " keys");
    }
    LEPTON_RETURN_IF_ERROR(CheckCells(rows_ + 1, builders_.size() + 1));
    builders_.emplace_back(key);
    for (int64_t row = 0; row < rows_; ++row) builders_.back().AddMissing();
    return at->second;
  }
  ColumnBuilder& operator[](size_t i) { return builders_[i]; }
  size_t size() const { return builders_.size(); }

  Status EndRow() {
    LEPTON_RETURN_IF_ERROR(CheckCells(rows_ + 1, builders_.size()));
    ++rows_;
    for (ColumnBuilder& column : builders_) {
      if (column.rows() < rows_) column.AddMissing();
    }
    return Status::Ok();
  }
  int64_t rows() const { return rows_; }

  // Starts over for the columns that need it; false if none does.
  bool StartSecondScan() {
    bool any = false;
    for (ColumnBuilder& column : builders_) {
      if (!column.needs_second_scan()) continue;
      column.StartSecondScan();
      any = true;
    }
    rows_ = 0;
    return any;
  }

 private:
  // Every line has a cell of every key, whether it holds the key or not.
  Status CheckCells(int64_t rows, size_t keys) const {
    if (rows * static_cast<int64_t>(keys) <= most_cells_) return Status::Ok();
    return InvalidArgument(std::to_string(rows) + " rows of " + std::to_string(keys) +
                           " keys are too many: most lines lack most of them");
  }

  const CsvOptions& options_;
  const int64_t most_cells_;
  std::vector<ColumnBuilder> builders_;
  std::unordered_map<std::string, size_t> places_;
  int64_t rows_ = 0;
};

// A value that has others in it, built from the parser's events.
class NestedValue {
 public:
  using Json = nlohmann::ordered_json;
  static constexpr size_t kMostLevels = 32, kMostValues = 1 << 16;

  bool empty() const { return open_.empty(); }
  bool full() const { return open_.size() > kMostLevels || values_ > kMostValues; }
  void Clear() { open_.clear(); }
  void Key(const std::string& name) { key_ = name; }
  void Open(Json container) {
    if (open_.empty()) {
      values_ = 0;
      whole_ = std::move(container);
      open_.push_back(&whole_);
    } else {
      open_.push_back(&Put(std::move(container)));
    }
  }
  Json& Put(Json value) {
    Json& in = *open_.back();
    ++values_;
    if (!in.is_array()) return in[key_] = std::move(value);
    in.push_back(std::move(value));
    return in.back();
  }
  // The whole, when that was its end.
  const Json* Close() {
    open_.pop_back();
    return open_.empty() ? &whole_ : nullptr;
  }

 private:
  Json whole_;
  std::vector<Json*> open_;  // the innermost last; no container grows while one in it is open
  std::string key_;
  size_t values_ = 0;
};

// A list of {role, content}, or an object with such under "messages", as chats are kept.
bool IsChat(const NestedValue::Json& value) {
  if (value.is_object()) return value.contains("messages") && IsChat(value["messages"]);
  const auto has_role = [](const auto& item) { return item.is_object() && item.contains("role"); };
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), has_role);
}

// The events of one line. Every function answers whether to go on.
class LineReader final : public nlohmann::json_sax<json> {
 public:
  LineReader(Columns& columns, const CsvOptions& options, bool second)
      : columns_(columns), options_(options), second_(second) {}

  void Reset() {
    depth_ = 0;
    next_ = 0;
    error_.clear();
    nested_.Clear();
  }
  const std::string& error() const { return error_; }

  bool null() override {
    if (!nested_.empty()) return Inner(nullptr);
    return Value([](ColumnBuilder& column) { column.AddMissing(); });
  }
  bool boolean(bool value) override {
    if (!nested_.empty()) return Inner(value);
    return Value([value](ColumnBuilder& column) { column.AddNumber(value ? 1 : 0, true); });
  }
  bool number_integer(json::number_integer_t value) override {
    if (!nested_.empty()) return Inner(value);
    return Integer(value, value >= -kExactIntegers && value <= kExactIntegers);
  }
  bool number_unsigned(json::number_unsigned_t value) override {
    if (!nested_.empty()) return Inner(value);
    return Integer(value, value <= uint64_t{kExactIntegers});
  }
  // Also what an integer of 64 bits cannot hold.
  bool number_float(json::number_float_t value, const std::string& written) override {
    if (!nested_.empty()) return Inner(value);
    return Value([&](ColumnBuilder& column) {
      const bool digits = written.find_first_of(".eE") == written.npos;
      if (digits && column.holds_text()) return column.AddText(written);
      column.AddNumber(value, false);
    });
  }
  bool string(std::string& value) override {
    if (static_cast<int64_t>(value.size()) > options_.max_field_bytes) {
      return Fail("\"" + key_ + "\" has " + std::to_string(value.size()) + " bytes; the limit is " +
                  std::to_string(options_.max_field_bytes));
    }
    if (value.find('\0') != std::string::npos) return Fail("\"" + key_ + "\" has a zero character");
    if (!nested_.empty()) return Inner(value);
    return Value([&value](ColumnBuilder& column) { column.AddText(value); });
  }
  bool binary(json::binary_t&) override { return Fail("binary data"); }
  bool start_object(size_t) override {
    if (depth_++ == 0) return true;
    return Open(NestedValue::Json::object());
  }
  bool end_object() override {
    --depth_;
    return depth_ == 0 || Close();
  }
  bool start_array(size_t) override {
    if (depth_ == 0) return Fail("a list; each line must be an object such as {\"a\": 1}");
    ++depth_;
    return Open(NestedValue::Json::array());
  }
  bool end_array() override {
    --depth_;
    return Close();
  }
  bool key(std::string& name) override {
    if (!nested_.empty()) {
      nested_.Key(name);
      return true;
    }
    key_ = name;
    const Result<size_t> place = columns_.Find(name, next_);
    if (!place.ok()) return Fail(place.status().message());
    place_ = *place;
    next_ = place_ + 1;
    if (!second_ && columns_[place_].rows() > columns_.rows()) {
      return Fail("the key \"" + name + "\" comes twice");
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Fail("not JSON: see character " + std::to_string(std::max<size_t>(1, position)) +
                " of the line");
  }

 private:
  bool Fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    return false;
  }
  // Only chats may be nested: they are texts of JSON. What else is so is refused where it ends.
  bool Open(NestedValue::Json container) {
    nested_.Open(std::move(container));
    return !nested_.full() || Fail("\"" + key_ + "\" has too many values in one another");
  }
  bool Inner(NestedValue::Json value) {
    nested_.Put(std::move(value));
    return !nested_.full() || Fail("\"" + key_ + "\" has too many values in one another");
  }
  bool Close() {
    const NestedValue::Json* const whole = nested_.Close();
    if (whole == nullptr) return true;
    if (IsChat(*whole)) {
      std::string text = whole->dump(-1, ' ', false, NestedValue::Json::error_handler_t::replace);
      return string(text);
    }
    return Fail(
        "\"" + key_ + "\" is " + (whole->is_array() ? "a list" : "an object") +
        "; columns hold numbers, texts and true or false, or a chat's messages: write its " +
        (whole->is_array() ? "items under keys of their own" : "fields beside the others"));
  }
  template <typename Int>
  bool Integer(Int value, bool exact) {
    return Value([=](ColumnBuilder& column) {
      if (column.holds_text()) return column.AddText(std::to_string(value));
      column.AddNumber(static_cast<double>(value), exact);
    });
  }
  template <typename Add>
  bool Value(const Add& add) {
    if (depth_ == 0) return Fail("a bare value; each line must be an object such as {\"a\": 1}");
    if (!second_ || columns_[place_].needs_second_scan()) add(columns_[place_]);
    return true;
  }

  Columns& columns_;
  const CsvOptions& options_;
  const bool second_;
  int depth_ = 0;
  size_t place_ = 0, next_ = 0;
  std::string key_, error_;
  NestedValue nested_;
};

Status ReadLines(std::string_view bytes, const CsvOptions& options, bool second, Columns& columns) {
  LineReader reader(columns, options, second);
  int64_t number = 0;
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    reader.Reset();
    const bool read = json::sax_parse(line.begin(), line.end(), &reader);
    if (!read || !reader.error().empty()) {
      return InvalidArgument("line " + std::to_string(number) + ": " + reader.error());
    }
    if (const Status ended = columns.EndRow(); !ended.ok()) {
      return ended.WithContext("line " + std::to_string(number));
    }
    if (columns.rows() > options.max_rows) {
      return InvalidArgument("line " + std::to_string(number) + ": more than " +
                             std::to_string(options.max_rows) + " rows");
    }
  }
  return Status::Ok();
}

}  // namespace

Result<Table> ReadJsonl(std::string_view bytes, const CsvOptions& options) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
  LEPTON_RETURN_IF_ERROR(CheckUtf8(bytes));
  Columns columns(options, bytes.size());
  LEPTON_RETURN_IF_ERROR(ReadLines(bytes, options, /*second=*/false, columns));
  if (columns.rows() == 0) {
    return InvalidArgument("the file is empty: each line must be an object such as {\"a\": 1}");
  }
  if (columns.size() == 0) return InvalidArgument("line 1: the objects have no keys");
  Table table;
  table.rows = columns.rows();
  if (columns.StartSecondScan()) {
    LEPTON_RETURN_IF_ERROR(ReadLines(bytes, options, /*second=*/true, columns));
  }
  for (size_t i = 0; i < columns.size(); ++i) {
    table.columns.push_back(std::move(columns[i]).Finish());
  }
  return table;
}

}  // namespace lepton::storage
