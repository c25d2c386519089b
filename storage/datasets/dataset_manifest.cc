#include "storage/datasets/dataset_manifest.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

constexpr char kFormat[] = "lepton.dataset";
constexpr int kVersion = 1;
constexpr size_t kMaxClasses = 1000;

std::vector<std::string> Classes(const Column& column) {
  std::vector<std::string> classes;
  if (column.type == ColumnType::kText) {
    if (column.dictionary.size() > kMaxClasses) return {};
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

DatasetManifest Describe(std::string_view name, const Table& table) {
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

}  // namespace

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
  return {{"format", kFormat},
          {"version", kVersion},
          {"name", m.name},
          {"source", m.source},
          {"table", m.table},
          {"rows", m.rows},
          {"columns", std::move(columns)},
          {"profile", std::move(profile)}};
}

Result<DatasetManifest> DatasetManifestFromJson(std::string_view text) {
  LEPTON_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Parse(text, kFormat, kVersion));
  DatasetManifest m;
  reader.Read("name", &m.name);
  reader.ReadDigest("source", &m.source);
  reader.ReadDigest("table", &m.table);
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
  LEPTON_RETURN_IF_ERROR(reader.status());
  return m;
}

Result<ImportedDataset> ImportCsv(ObjectStore& objects, std::string_view name,
                                  std::string_view bytes) {
  LEPTON_ASSIGN_OR_RETURN(const Table table, ReadCsv(bytes));
  LEPTON_ASSIGN_OR_RETURN(const std::string encoded, TableToSafetensors(table));
  ImportedDataset imported{Describe(name, table), {}};
  LEPTON_ASSIGN_OR_RETURN(imported.manifest.source, objects.Put(bytes));
  LEPTON_ASSIGN_OR_RETURN(imported.manifest.table, objects.Put(encoded));
  LEPTON_ASSIGN_OR_RETURN(imported.digest, objects.Put(DumpManifest(ToJson(imported.manifest))));
  return imported;
}

}  // namespace lepton::storage
