#include "storage/datasets/dataset_manifest.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

constexpr char kFormat[] = "lepton.dataset";
constexpr int kVersion = 2;  // 1: tables only, without "kind" and "format"
constexpr size_t kMaxClasses = 1000;
constexpr size_t kMaxClassBytes = 256;

constexpr std::pair<DatasetKind, std::string_view> kKindNames[] = {
    {DatasetKind::kTable, "table"},
    {DatasetKind::kText, "text"},
    {DatasetKind::kTokens, "tokens"},
    {DatasetKind::kImages, "images"}};

std::vector<std::string> Classes(const Column& column) {
  std::vector<std::string> classes;
  if (column.type == ColumnType::kText) {
    if (column.dictionary.size() > kMaxClasses) return {};
    for (const std::string& text : column.dictionary) {
      if (text.size() > kMaxClassBytes) return {};
    }
    classes = column.dictionary;
    std::sort(classes.begin(), classes.end());
    return classes;
  }
  std::set<double> distinct;
  for (const double value : column.values) {
    if (!std::isnan(value)) distinct.insert(value);
    if (distinct.size() > kMaxClasses) return {};
  }
  for (const double value : distinct) classes.push_back(NumberText(column.type, value));
  return classes;
}

void ReadKind(ManifestReader& reader, DatasetManifest* m) {
  int64_t version = 0;
  reader.Read("version", &version);
  if (version < 2) return;
  std::string kind;
  reader.Read("kind", &kind);
  reader.Read("read_from", &m->format);
  for (const auto& [known, name] : kKindNames) {
    if (name == kind) {
      m->kind = known;
      return;
    }
  }
  reader.Fail("kind", "is not a kind of dataset");
}

void ReadTokens(ManifestReader& reader, DatasetManifest* m) {
  reader.Read("token_bytes", &m->token_bytes);
  reader.Read("max_token", &m->max_token);
  reader.Read("max_token_at", &m->max_token_at);
  if (m->token_bytes != 2 && m->token_bytes != 4) reader.Fail("token_bytes", "must be 2 or 4");
  if (m->max_token < 0) reader.Fail("max_token", "must not be negative");
}

}  // namespace

std::string_view DatasetKindName(DatasetKind kind) {
  for (const auto& [known, name] : kKindNames) {
    if (known == kind) return name;
  }
  return "table";
}

const DatasetManifest::ColumnInfo* DatasetManifest::Find(std::string_view column) const {
  for (const ColumnInfo& info : columns) {
    if (info.name == column) return &info;
  }
  return nullptr;
}

std::vector<Digest> DatasetManifest::DataObjects() const {
  switch (kind) {
    case DatasetKind::kTable:
      return {table};
    case DatasetKind::kImages:
      return {source, table};
    case DatasetKind::kText:
    case DatasetKind::kTokens:
      break;
  }
  return {source};
}

DatasetManifest DescribeTable(std::string_view name, const Table& table) {
  DatasetManifest manifest;
  manifest.name = name;
  manifest.rows = table.rows;
  for (const Column& column : table.columns) {
    int64_t missing = 0;
    for (int64_t row = 0; row < table.rows; ++row) missing += column.Missing(row);
    manifest.columns.push_back({column.name, column.type, Classes(column), missing});
  }
  manifest.profile_json = DumpManifest(Profile(table));
  return manifest;
}

nlohmann::json ToJson(const DatasetManifest& m) {
  nlohmann::json columns = nlohmann::json::array();
  for (const DatasetManifest::ColumnInfo& c : m.columns) {
    columns.push_back({{"name", c.name},
                       {"type", ColumnTypeName(c.type)},
                       {"classes", c.classes},
                       {"missing", c.missing}});
  }
  nlohmann::json profile =
      nlohmann::json::parse(m.profile_json, nullptr, /*allow_exceptions=*/false);
  if (profile.is_discarded()) profile = nullptr;
  nlohmann::json out = {{"format", kFormat},
                        {"version", kVersion},
                        {"name", m.name},
                        {"kind", DatasetKindName(m.kind)},
                        {"read_from", m.format},
                        {"source", m.source},
                        {"table", m.table},
                        {"rows", m.rows},
                        {"columns", std::move(columns)},
                        {"profile", std::move(profile)}};
  if (m.kind == DatasetKind::kImages) out["classes"] = m.classes;
  if (m.kind == DatasetKind::kTokens) {
    out["token_bytes"] = m.token_bytes;
    out["max_token"] = m.max_token;
    out["max_token_at"] = m.max_token_at;
  }
  return out;
}

Result<DatasetManifest> DatasetManifestFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Parse(text, kFormat, kVersion));
  DatasetManifest m;
  reader.Read("name", &m.name);
  ReadKind(reader, &m);
  const bool has_table = m.kind == DatasetKind::kTable || m.kind == DatasetKind::kImages;
  reader.ReadDigest("source", &m.source);
  reader.ReadDigest("table", &m.table, /*may_be_empty=*/!has_table);
  reader.Read("rows", &m.rows);
  reader.ReadJson("profile", &m.profile_json);
  for (ManifestReader& entry : reader.ReadObjects("columns")) {
    DatasetManifest::ColumnInfo& c = m.columns.emplace_back();
    std::string type;
    entry.Read("name", &c.name);
    entry.Read("type", &type);
    entry.Read("classes", &c.classes);
    entry.Read("missing", &c.missing);
    if (!ColumnTypeFromName(type, &c.type)) entry.Fail("type", "is not a column type");
  }
  if (m.kind == DatasetKind::kImages) reader.Read("classes", &m.classes);
  if (m.kind == DatasetKind::kTokens) ReadTokens(reader, &m);
  LEPTON_RETURN_IF_ERROR(reader.status());
  return m;
}

}  // namespace lepton::storage
