// Named tables of ordered rows beside the journal: each row's key is the table's name, a zero byte
// and the row's own key. Threads: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "storage/metadata/metadata_store.h"
#include "storage/metadata/rocks_database.h"

namespace lepton::storage {

// The methods are MetadataStore's. kInvalidArgument for a table name that is not 1 to 32 letters
// a-z, digits and underscores.
class SideTables {
 public:
  using Row = MetadataStore::Row;
  // `database` must outlive this.
  explicit SideTables(RocksDatabase& database) : database_(database) {}

  Status Put(std::string_view table, const std::vector<Row>& rows);
  Result<std::optional<std::string>> Get(std::string_view table, std::string_view key) const;
  Result<std::vector<Row>> Scan(std::string_view table, std::string_view from, std::string_view to,
                                size_t limit) const;
  Status Delete(std::string_view table, const std::vector<std::string>& keys);
  Status DeleteRange(std::string_view table, std::string_view from, std::string_view to);

 private:
  RocksDatabase& database_;
};

}  // namespace lepton::storage
