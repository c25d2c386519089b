#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "runtime/base/file.h"
#include "storage/datasets/import.h"
#include "storage/datasets/table.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

constexpr char kCsv[] = "n,x,t\n10,0.5,b\n9,,a\n,1.5,b\n10,2.5,\"c, d\"\n";

TEST(ProfileTest, DescribesEachColumn) {
  const nlohmann::json profile = Profile(ReadCsv(kCsv).value());
  EXPECT_EQ(profile["rows"], 4);
  const auto& n = profile["columns"][0];
  EXPECT_EQ(n["name"], "n");
  EXPECT_EQ(n["type"], "integer");
  EXPECT_EQ(n["count"], 3);
  EXPECT_EQ(n["missing"], 1);
  EXPECT_EQ(n["min"].dump(), "9");
  EXPECT_EQ(n["max"].dump(), "10");
  EXPECT_EQ(n["distinct"], 2);
  EXPECT_EQ(n["distinct_exact"], true);
  EXPECT_EQ(n["top"].dump(), R"([{"count":2,"value":10},{"count":1,"value":9}])");
  const auto& x = profile["columns"][1];
  EXPECT_DOUBLE_EQ(x["mean"].get<double>(), 1.5);
  EXPECT_DOUBLE_EQ(x["stddev"].get<double>(), std::sqrt(2.0 / 3));
  EXPECT_EQ(x["min"], 0.5);
  EXPECT_FALSE(x.contains("top"));
  const auto& t = profile["columns"][2];
  EXPECT_EQ(t["distinct"], 3);
  EXPECT_EQ(t["top"][0].dump(), R"({"count":2,"value":"b"})");
}

TEST(ProfileTest, StaysExactForALargeMeanAndASmallSpread) {
  Table table;
  Column column{"x", ColumnType::kReal, {}, {}, {}};
  for (int i = 0; i < 100'000; ++i) column.values.push_back(1e9 + i % 2);
  table.rows = 100'000;
  table.columns.push_back(column);
  EXPECT_NEAR(Profile(table)["columns"][0]["stddev"].get<double>(), 0.5, 1e-6);
}

TEST(ProfileTest, CountsDistinctValuesUpToABound) {
  std::string csv = "few,many,text\n";
  for (int i = 0; i < 3000; ++i) {
    csv += std::to_string(i % 1000) + "," + std::to_string(i) + ",t" + std::to_string(i) + "\n";
  }
  const nlohmann::json columns = Profile(ReadCsv(csv).value())["columns"];
  EXPECT_EQ(columns[0]["distinct"], 1000);
  EXPECT_EQ(columns[0]["distinct_exact"], true);
  EXPECT_EQ(columns[0]["top"].size(), 20u);
  for (const int i : {1, 2}) {
    EXPECT_EQ(columns[i]["distinct"], 1000);
    EXPECT_EQ(columns[i]["distinct_exact"], false);
  }
}

TEST(ProfileTest, AnEmptyColumnHasNoNumbers) {
  const nlohmann::json column = Profile(ReadCsv("a,b\n,1\n").value())["columns"][0];
  EXPECT_EQ(column["missing"], 1);
  EXPECT_FALSE(column.contains("mean"));
}

TEST(TableSafetensorsTest, ATableComesBackAsItWas) {
  const Table table = ReadCsv(kCsv).value();
  const std::string bytes = TableToSafetensors(table).value();
  EXPECT_EQ(bytes, TableToSafetensors(table).value());
  const auto back = TableFromSafetensors(bytes);
  ASSERT_THAT(back, IsOk());
  ASSERT_EQ(back->rows, table.rows);
  ASSERT_EQ(back->columns.size(), table.columns.size());
  for (size_t i = 0; i < table.columns.size(); ++i) {
    const Column &a = table.columns[i], &b = back->columns[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.type, b.type);
    EXPECT_EQ(a.codes, b.codes);
    EXPECT_EQ(a.dictionary, b.dictionary);
    for (int64_t row = 0; row < table.rows; ++row) EXPECT_EQ(a.CellText(row), b.CellText(row));
  }
}

TEST(TableSafetensorsTest, DamageNeverCrashesNorGivesUnevenColumns) {
  const std::string good = TableToSafetensors(ReadCsv(kCsv).value()).value();
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = good;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto table = TableFromSafetensors(bytes);
    refused += !table.ok();
    if (!table.ok()) continue;
    for (const Column& c : table->columns) {
      for (int64_t row = 0; row < table->rows; ++row) (void)c.CellText(row);
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(DatasetManifestTest, ClassesAreSortedByValueAndWrittenShort) {
  const TempFolder folder;
  const auto objects = ObjectStore::Open(folder.path()).value();
  const auto imported = ImportCsv(*objects, "d", kCsv);
  ASSERT_THAT(imported, IsOk());
  const DatasetManifest& m = imported->manifest;
  EXPECT_EQ(m.rows, 4);
  EXPECT_THAT(m.columns[0].classes, ElementsAre("9", "10"));
  EXPECT_THAT(m.columns[1].classes, ElementsAre("0.5", "1.5", "2.5"));
  EXPECT_THAT(m.columns[2].classes, ElementsAre("a", "b", "c, d"));
  EXPECT_EQ(m.columns[1].missing, 1);
  EXPECT_EQ(objects->Get(m.source).value(), kCsv);
  EXPECT_EQ(TableFromSafetensors(objects->Get(m.table).value()).value().rows, 4);
}

TEST(DatasetManifestTest, AManyValuedColumnHasNoClasses) {
  const TempFolder folder;
  const auto objects = ObjectStore::Open(folder.path()).value();
  std::string csv = "a,b\n";
  for (int i = 0; i < 1001; ++i) csv += std::to_string(i) + ",t" + std::to_string(i) + "\n";
  const auto imported = ImportCsv(*objects, "d", csv).value();
  EXPECT_TRUE(imported.manifest.columns[0].classes.empty());
  EXPECT_TRUE(imported.manifest.columns[1].classes.empty());
}

TEST(DatasetManifestTest, TheStoredManifestReadsBack) {
  const TempFolder folder;
  const auto objects = ObjectStore::Open(folder.path()).value();
  const auto imported = ImportCsv(*objects, "d", kCsv).value();
  EXPECT_EQ(ImportCsv(*objects, "d", kCsv).value().digest, imported.digest);
  const auto back = DatasetManifestFromJson(objects->Get(imported.digest).value());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(ToJson(*back), ToJson(imported.manifest));
  EXPECT_EQ(nlohmann::json::parse(back->profile_json)["rows"], 4);
}

TEST(DatasetManifestTest, ABadCsvStoresNothing) {
  const TempFolder folder;
  const auto objects = ObjectStore::Open(folder.path()).value();
  EXPECT_THAT(ImportCsv(*objects, "d", "a,b\n1\n"), Fails(StatusCode::kInvalidArgument, "line 2"));
  EXPECT_TRUE(fs::is_empty(folder.path() / "objects"));
}

TEST(DatasetManifestTest, BadDocumentsAreRefusedNamingTheField) {
  DatasetManifest manifest;
  manifest.source = manifest.table = std::string(64, 'a');
  manifest.columns.push_back({"c", ColumnType::kText, {"x"}, 0});
  const nlohmann::json good = ToJson(manifest);
  ASSERT_THAT(DatasetManifestFromJson(good.dump()), IsOk());
  const auto with = [&](const char* pointer, nlohmann::json value) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(pointer)] = std::move(value);
    return DatasetManifestFromJson(bad.dump());
  };
  EXPECT_THAT(DatasetManifestFromJson("{"), Fails(StatusCode::kInvalidArgument, "not valid JSON"));
  EXPECT_THAT(DatasetManifestFromJson("[]"), Fails(StatusCode::kInvalidArgument, "not a JSON"));
  EXPECT_THAT(with("/format", "lepton.model"), Fails(StatusCode::kInvalidArgument, "another kind"));
  EXPECT_THAT(with("/version", 3), Fails(StatusCode::kFailedPrecondition, "version 3"));
  EXPECT_THAT(with("/kind", "sounds"), Fails(StatusCode::kInvalidArgument, "kind"));
  EXPECT_THAT(with("/kind", "tokens"), Fails(StatusCode::kInvalidArgument, "token_bytes"));
  EXPECT_THAT(with("/kind", "images"), Fails(StatusCode::kInvalidArgument, "classes"));
  EXPECT_THAT(with("/version", "1"), Fails(StatusCode::kInvalidArgument, "version"));
  EXPECT_THAT(with("/rows", -1.5), Fails(StatusCode::kInvalidArgument, "rows"));
  EXPECT_THAT(with("/table", "xyz"), Fails(StatusCode::kInvalidArgument, "table"));
  EXPECT_THAT(with("/columns", 1), Fails(StatusCode::kInvalidArgument, "columns"));
  EXPECT_THAT(with("/columns/0/type", "blob"),
              Fails(StatusCode::kInvalidArgument, "columns[0].type"));
  EXPECT_THAT(with("/columns/0/classes", nullptr),
              Fails(StatusCode::kInvalidArgument, "columns[0].classes"));
}

TEST(DatasetManifestTest, DocumentsOfTheFirstVersionStillRead) {
  DatasetManifest manifest;
  manifest.source = manifest.table = std::string(64, 'a');
  nlohmann::json old = ToJson(manifest);
  old["version"] = 1;
  old.erase("kind");
  old.erase("read_from");
  const auto back = DatasetManifestFromJson(old.dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->kind, DatasetKind::kTable);
  EXPECT_EQ(back->format, "csv");
}

// The files of the quick start, whose figures are public.
TEST(QuickStartDataTest, HasThePublishedRowsColumnsAndClasses) {
  const fs::path data = LEPTON_SOURCE_DIR "/scripts/data";
  const Table digits = ReadCsv(ReadFile(data / "digits.csv").value()).value();
  EXPECT_EQ(digits.rows, 1797);
  EXPECT_EQ(digits.columns.size(), 65u);
  for (const Column& column : digits.columns) EXPECT_EQ(column.type, ColumnType::kInteger);
  const Table cancer = ReadCsv(ReadFile(data / "breast_cancer.csv").value()).value();
  EXPECT_EQ(cancer.rows, 569);
  EXPECT_EQ(cancer.columns.size(), 31u);
  const nlohmann::json label = Profile(cancer)["columns"][30];
  EXPECT_EQ(label["top"].dump(),
            R"([{"count":357,"value":"benign"},{"count":212,"value":"malignant"}])");
}

}  // namespace
}  // namespace lepton::storage
