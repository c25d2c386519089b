#include "cli/recoveries.h"

#include <cstdio>
#include <vector>

#include "cli/output.h"

namespace lepton::cli {

using nlohmann::json;

std::string RecoveriesTable(const json& job) {
  const json recoveries = job.value("recoveries", json::array());
  if (recoveries.empty()) return "";
  Table table({"HOW", "EPOCH", "REASON", "RANKS", "STEP", "DETECT", "AGREE", "REBUILD", "RESTORE",
               "COMMIT", "TOTAL", "CAUSE"});
  for (const json& one : recoveries) {
    std::vector<std::string> row = {one.value("restart", false) ? "restart" : "in place"};
    for (const char* key : {"epoch", "reason_code", "ranks", "step"}) row.push_back(Text(one, key));
    for (const char* key :
         {"detect_ms", "agree_ms", "rebuild_ms", "restore_ms", "first_commit_ms", "total_ms"}) {
      char cell[32];
      std::snprintf(cell, sizeof(cell), "%.1f ms", Number(one, key));
      row.emplace_back(cell);
    }
    row.push_back(Text(one, "cause"));
    table.Row(row);
  }
  return table.ToString();
}

}  // namespace lepton::cli
