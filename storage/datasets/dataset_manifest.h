// One immutable version of a dataset: what its objects are and what is in them. Stored as a JSON
// object in the object store; its digest is the version's identity.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "storage/datasets/table.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {

struct DatasetManifest {
  std::string name;  // "" for an unregistered file
  Digest source;     // the bytes as uploaded
  Digest table;      // safetensors table
  int64_t rows = 0;
  struct ColumnInfo {
    std::string name;
    ColumnType type;
    // Distinct values as Column::CellText, sorted (numbers by value); empty if over 1,000.
    std::vector<std::string> classes;
    int64_t missing = 0;
  };
  std::vector<ColumnInfo> columns;
  std::string profile_json;
};

nlohmann::json ToJson(const DatasetManifest& manifest);
// Never throws. kInvalidArgument names the field that is missing or wrong; kFailedPrecondition when
// a newer program wrote it.
Result<DatasetManifest> DatasetManifestFromJson(std::string_view json);

// Parses, profiles and stores a CSV; nothing is stored when it is bad. Returns the manifest and its
// own digest.
struct ImportedDataset {
  DatasetManifest manifest;
  Digest digest;
};
Result<ImportedDataset> ImportCsv(ObjectStore& objects, std::string_view name,
                                  std::string_view bytes);

}  // namespace lepton::storage
