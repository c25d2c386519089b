// The formats, and what every import has in common.
#include "storage/datasets/import.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "storage/datasets/csv_scanner.h"
#include "storage/datasets/formats.h"
#include "storage/manifests/manifest_reader.h"

namespace lepton::storage {
namespace {

struct Format {
  std::string_view name;
  Result<DatasetManifest> (*import)(ObjectStore&, ByteSource&, const ImportOptions&);
};

constexpr Format kFormats[] = {
    {"csv", ImportCsvFile},       {"jsonl", ImportJsonlFile},     {"text", ImportTextFile},
    {"tokens", ImportTokensFile}, {"images", ImportImageArchive},
};

struct Suffix {
  std::string_view suffix, format;
};
constexpr Suffix kSuffixes[] = {
    {".csv", "csv"},        {".tsv", "csv"},        {".jsonl", "jsonl"},
    {".ndjson", "jsonl"},   {".txt", "text"},       {".text", "text"},
    {".md", "text"},        {".bin", "tokens"},     {".safetensors", "tokens"},
    {".tar", "images"},     {".zip", "images"},     {".tar.gz", "images"},
    {".tgz", "images"},     {".tar.zst", "images"}, {".tar.xz", "images"},
    {".tar.bz2", "images"},
};

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return out;
}

Result<ImportedDataset> StoreManifest(ObjectStore& objects, Result<DatasetManifest> manifest,
                                      const ImportOptions& options, std::string_view format) {
  if (!manifest.ok()) return manifest.status();
  manifest->name = options.name;
  manifest->format = format;
  ImportedDataset imported{*std::move(manifest), {}};
  LEPTON_ASSIGN_OR_RETURN(imported.digest, objects.Put(DumpManifest(ToJson(imported.manifest))));
  return imported;
}

// A table is stored whole, beside the bytes it was read from.
Result<DatasetManifest> StoreTable(ObjectStore& objects, const Table& table,
                                   std::string_view bytes) {
  LEPTON_ASSIGN_OR_RETURN(const std::string encoded, TableToSafetensors(table));
  DatasetManifest manifest = DescribeTable("", table);
  LEPTON_ASSIGN_OR_RETURN(manifest.source, objects.Put(bytes));
  LEPTON_ASSIGN_OR_RETURN(manifest.table, objects.Put(encoded));
  return manifest;
}

CsvOptions CsvOptionsFor(const ImportOptions& options) {
  CsvOptions csv;
  if (Lower(options.path).ends_with(".tsv")) csv.delimiter = '\t';
  return csv;
}

}  // namespace

const std::vector<std::string>& DatasetFormats() {
  static const std::vector<std::string> names = {"auto", "csv",    "jsonl",
                                                 "text", "tokens", "images"};
  return names;
}

Result<std::string> GuessFormat(std::string_view path, std::string_view start) {
  const std::string lower = Lower(path);
  for (const Suffix& suffix : kSuffixes) {
    if (lower.ends_with(suffix.suffix)) return std::string(suffix.format);
  }
  if (start.starts_with("PK\x03\x04") || start.starts_with("\x1F\x8B") ||
      (start.size() > 262 && start.substr(257, 5) == "ustar")) {
    return std::string("images");
  }
  const size_t first = start.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first != start.npos && start[first] == '{') return std::string("jsonl");
  if (start.find('\0') != start.npos) {
    return InvalidArgument(
        "format: cannot be told from the suffix or the first bytes; name one of "
        "csv, jsonl, text, tokens, images");
  }
  const std::string_view line = start.substr(0, start.find('\n'));
  return std::string(line.find(',') != line.npos || start.empty() ? "csv" : "text");
}

Status ReportProgress(const ImportOptions& options, std::string_view phase, uint64_t done,
                      uint64_t total) {
  if (!options.progress || options.progress({phase, done, total})) return Status::Ok();
  return Cancelled("the import was stopped");
}

Result<DatasetManifest> ImportCsvFile(ObjectStore& objects, ByteSource& source,
                                      const ImportOptions& options) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, source.ReadAll(options.limits.table_bytes));
  LEPTON_ASSIGN_OR_RETURN(const Table table, ReadCsv(bytes, CsvOptionsFor(options)));
  return StoreTable(objects, table, bytes);
}

Result<DatasetManifest> ImportJsonlFile(ObjectStore& objects, ByteSource& source,
                                        const ImportOptions& options) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, source.ReadAll(options.limits.table_bytes));
  LEPTON_ASSIGN_OR_RETURN(const Table table, ReadJsonl(bytes));
  return StoreTable(objects, table, bytes);
}

Result<ImportedDataset> ImportFile(ObjectStore& objects, ByteSource source,
                                   const ImportOptions& options) {
  std::string format = options.format;
  if (format == "auto") {
    LEPTON_ASSIGN_OR_RETURN(const std::string start, source.Peek(4096));
    LEPTON_ASSIGN_OR_RETURN(format, GuessFormat(options.path, start));
  }
  for (const Format& known : kFormats) {
    if (known.name == format) {
      return StoreManifest(objects, known.import(objects, source, options), options, format);
    }
  }
  return InvalidArgument("format: \"" + format +
                         "\" is unknown: must be auto, csv, jsonl, text, tokens or images");
}

Result<ImportedDataset> ImportFolder(ObjectStore& objects, UniqueFd folder,
                                     const ImportOptions& options) {
  if (options.format != "auto" && options.format != "images") {
    return InvalidArgument("format: a folder holds images, but format is " + options.format);
  }
  return StoreManifest(objects, ImportImageFolder(objects, std::move(folder), options), options,
                       "images");
}

Result<ImportedDataset> ImportCsv(ObjectStore& objects, std::string_view name,
                                  std::string_view bytes) {
  ImportOptions options;
  options.name = name;
  options.format = "csv";
  return ImportFile(objects, ByteSource::FromMemory(bytes), options);
}

}  // namespace lepton::storage
