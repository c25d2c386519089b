// Tensors: "column.<i>", F64 or (text) I32 codes; for text also "dictionary.<i>", the texts' bytes
// one after another, and "dictionary_ends.<i>", where each ends. Metadata "lepton.table": the
// schema.
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/formats/safetensors/safetensors.h"
#include "storage/datasets/table.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian");

constexpr char kTableFormat[] = "lepton.table";
constexpr int kTableVersion = 1;

template <typename T>
std::string_view AsBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string TensorName(const char* kind, size_t column) {
  return kind + ("." + std::to_string(column));
}

template <typename T>
Status ReadVector(const safetensors::File& file, const std::string& name, const char* dtype,
                  std::vector<T>* out) {
  const safetensors::TensorView* tensor = file.Find(name);
  if (tensor == nullptr || tensor->dtype != dtype || tensor->shape.size() != 1) {
    return InvalidArgument("table: tensor \"" + name + "\" is missing or of another type");
  }
  out->resize(tensor->bytes.size() / sizeof(T));
  if (!out->empty()) std::memcpy(out->data(), tensor->bytes.data(), tensor->bytes.size());
  return Status::Ok();
}

Status ReadDictionary(const safetensors::File& file, size_t i, Column* column) {
  std::vector<int64_t> ends;
  std::vector<char> text;
  LEPTON_RETURN_IF_ERROR(ReadVector(file, TensorName("dictionary_ends", i), "I64", &ends));
  LEPTON_RETURN_IF_ERROR(ReadVector(file, TensorName("dictionary", i), "U8", &text));
  int64_t begin = 0;
  for (const int64_t end : ends) {
    if (end < begin || end > static_cast<int64_t>(text.size())) {
      return InvalidArgument("table: column \"" + column->name + "\": bad dictionary");
    }
    column->dictionary.emplace_back(text.data() + begin, static_cast<size_t>(end - begin));
    begin = end;
  }
  for (const int32_t code : column->codes) {
    if (code < -1 || code >= static_cast<int64_t>(ends.size())) {
      return InvalidArgument("table: column \"" + column->name + "\": a code has no text");
    }
  }
  return Status::Ok();
}

Status ReadColumn(const safetensors::File& file, size_t i, int64_t rows, Column* column) {
  size_t cells = 0;
  if (column->type == ColumnType::kText) {
    LEPTON_RETURN_IF_ERROR(ReadVector(file, TensorName("column", i), "I32", &column->codes));
    LEPTON_RETURN_IF_ERROR(ReadDictionary(file, i, column));
    cells = column->codes.size();
  } else {
    LEPTON_RETURN_IF_ERROR(ReadVector(file, TensorName("column", i), "F64", &column->values));
    cells = column->values.size();
  }
  if (static_cast<int64_t>(cells) == rows) return Status::Ok();
  return InvalidArgument("table: column \"" + column->name + "\" has " + std::to_string(cells) +
                         " cells, but the table has " + std::to_string(rows) + " rows");
}

}  // namespace

Result<std::string> TableToSafetensors(const Table& table) {
  std::vector<safetensors::TensorView> tensors;
  std::vector<std::string> texts(table.columns.size());
  std::vector<std::vector<int64_t>> ends(table.columns.size());
  nlohmann::json columns = nlohmann::json::array();
  for (size_t i = 0; i < table.columns.size(); ++i) {
    const Column& c = table.columns[i];
    columns.push_back({{"name", c.name}, {"type", ColumnTypeName(c.type)}});
    if (c.type != ColumnType::kText) {
      tensors.push_back({TensorName("column", i), "F64", {table.rows}, AsBytes(c.values)});
      continue;
    }
    for (const std::string& text : c.dictionary) {
      texts[i] += text;
      ends[i].push_back(static_cast<int64_t>(texts[i].size()));
    }
    tensors.push_back({TensorName("column", i), "I32", {table.rows}, AsBytes(c.codes)});
    tensors.push_back(
        {TensorName("dictionary", i), "U8", {static_cast<int64_t>(texts[i].size())}, texts[i]});
    tensors.push_back({TensorName("dictionary_ends", i),
                       "I64",
                       {static_cast<int64_t>(ends[i].size())},
                       AsBytes(ends[i])});
  }
  const nlohmann::json schema = {{"format", kTableFormat},
                                 {"version", kTableVersion},
                                 {"rows", table.rows},
                                 {"columns", std::move(columns)}};
  return safetensors::Serialize(tensors, {{kTableFormat, DumpManifest(schema)}});
}

Result<Table> TableFromSafetensors(std::string_view bytes) {
  LEPTON_ASSIGN_OR_RETURN(const safetensors::File file, safetensors::Parse(bytes));
  const auto schema = file.metadata.find(kTableFormat);
  if (schema == file.metadata.end()) return InvalidArgument("table: no schema in the metadata");
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader,
                          ManifestReader::Parse(schema->second, kTableFormat, kTableVersion));
  Table table;
  reader.Read("rows", &table.rows);
  std::set<std::string> names;
  for (ManifestReader& entry : reader.ReadObjects("columns")) {
    Column& column = table.columns.emplace_back();
    std::string type;
    entry.Read("name", &column.name);
    entry.Read("type", &type);
    if (!ColumnTypeFromName(type, &column.type)) entry.Fail("type", "is not a column type");
    if (!names.insert(column.name).second) entry.Fail("name", "is given twice");
  }
  LEPTON_RETURN_IF_ERROR(reader.status());
  for (size_t i = 0; i < table.columns.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(ReadColumn(file, i, table.rows, &table.columns[i]));
  }
  return table;
}

}  // namespace lepton::storage
