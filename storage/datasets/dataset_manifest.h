// One immutable version of a dataset: what its objects are and what is in them. Stored as a JSON
// object in the object store; its digest is the version's identity. Made by import.h.
// Threads: plain values.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "storage/datasets/table.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {

enum class DatasetKind {
  kTable,   // rows of named columns: csv, jsonl
  kText,    // one stream of UTF-8 text
  kTokens,  // one stream of token ids
  kImages,  // pictures in classes
};
// "table", "text", "tokens", "images"
std::string_view DatasetKindName(DatasetKind kind);

struct DatasetManifest {
  std::string name;  // "" for an unregistered file
  DatasetKind kind = DatasetKind::kTable;
  std::string format = "csv";  // what it was read from: csv, jsonl, text, tokens, images
  // The bytes as uploaded; kTokens: the ids alone, little-endian, without header; kImages: all
  // files one after another.
  Digest source;
  Digest table;      // kTable: safetensors table; kImages: the index of the files (image_index.h)
  int64_t rows = 0;  // of a table; lines, tokens, pictures
  struct ColumnInfo {
    std::string name;
    ColumnType type;
    // Distinct values as Column::CellText, sorted (numbers by value); empty if they are over 1,000
    // or texts too long for a name.
    std::vector<std::string> classes;
    int64_t missing = 0;
  };
  std::vector<ColumnInfo> columns;   // kTable
  std::vector<std::string> classes;  // kImages: class index -> name of the folder, sorted
  int64_t token_bytes = 0;           // kTokens: 2 or 4
  int64_t max_token = 0;             // kTokens: the largest id,
  int64_t max_token_at = 0;          // and where it is first
  std::string profile_json;

  const ColumnInfo* Find(std::string_view column) const;
  // The objects that a task needs beside the manifest.
  std::vector<Digest> DataObjects() const;
};

nlohmann::json ToJson(const DatasetManifest& manifest);
// Never throws. kInvalidArgument names the field that is missing or wrong; kFailedPrecondition when
// a newer program wrote it.
Result<DatasetManifest> DatasetManifestFromJson(std::string_view json);

// The manifest of a table, without its objects.
DatasetManifest DescribeTable(std::string_view name, const Table& table);

}  // namespace lepton::storage
