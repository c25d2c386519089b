#include "storage/metadata/side_tables.h"

#include <rocksdb/write_batch.h>

#include <algorithm>
#include <memory>

namespace lepton::storage {
namespace {

constexpr size_t kMaxTableName = 32;

// "t", the table's name, a zero byte: what every key of the table begins with.
Result<std::string> Prefix(std::string_view table) {
  const bool valid = !table.empty() && table.size() <= kMaxTableName &&
                     std::all_of(table.begin(), table.end(), [](char c) {
                       return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
                     });
  if (!valid) {
    return InvalidArgument("metadata table \"" + std::string(table) +
                           "\": a name is 1 to 32 of a-z, 0-9 and _");
  }
  return "t" + std::string(table) + '\0';
}

}  // namespace

Status SideTables::Put(std::string_view table, const std::vector<Row>& rows) {
  LEPTON_ASSIGN_OR_RETURN(const std::string prefix, Prefix(table));
  rocksdb::WriteBatch batch;
  for (const auto& [key, value] : rows) batch.Put(prefix + key, value);
  return database_.Write(batch, /*sync=*/false);
}

Result<std::optional<std::string>> SideTables::Get(std::string_view table,
                                                   std::string_view key) const {
  LEPTON_ASSIGN_OR_RETURN(const std::string prefix, Prefix(table));
  std::optional<std::string> found;
  LEPTON_RETURN_IF_ERROR(database_.Read([&](rocksdb::DB& db) -> Status {
    std::string value;
    const rocksdb::Status status = db.Get({}, prefix + std::string(key), &value);
    if (status.ok()) found = std::move(value);
    return status.IsNotFound() ? Status::Ok() : FromRocks(status, "metadata");
  }));
  return found;
}

Result<std::vector<SideTables::Row>> SideTables::Scan(std::string_view table, std::string_view from,
                                                      std::string_view to, size_t limit) const {
  LEPTON_ASSIGN_OR_RETURN(const std::string prefix, Prefix(table));
  std::string end = prefix + std::string(to);
  if (to.empty()) end.back() = '\1';
  std::vector<Row> rows;
  LEPTON_RETURN_IF_ERROR(database_.Read([&](rocksdb::DB& db) -> Status {
    const rocksdb::Slice bound(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &bound;
    const std::unique_ptr<rocksdb::Iterator> it(db.NewIterator(options));
    for (it->Seek(prefix + std::string(from)); it->Valid() && rows.size() < limit; it->Next()) {
      rocksdb::Slice key = it->key();
      key.remove_prefix(prefix.size());
      rows.emplace_back(key.ToString(), it->value().ToString());
    }
    return FromRocks(it->status(), "metadata");
  }));
  return rows;
}

Status SideTables::Delete(std::string_view table, const std::vector<std::string>& keys) {
  LEPTON_ASSIGN_OR_RETURN(const std::string prefix, Prefix(table));
  rocksdb::WriteBatch batch;
  for (const std::string& key : keys) batch.Delete(prefix + key);
  return database_.Write(batch, /*sync=*/false);
}

Status SideTables::DeleteRange(std::string_view table, std::string_view from, std::string_view to) {
  LEPTON_ASSIGN_OR_RETURN(const std::string prefix, Prefix(table));
  rocksdb::WriteBatch batch;
  batch.DeleteRange(prefix + std::string(from), prefix + std::string(to));
  return database_.Write(batch, /*sync=*/false);
}

}  // namespace lepton::storage
