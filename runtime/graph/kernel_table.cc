#include "runtime/graph/kernel_table.h"

namespace lepton::graph {

Result<const KernelEntry*> KernelTable::Select(const KernelRequest& request) const {
  for (const KernelEntry& entry : entries_) {
    if (entry.op == request.op && entry.dtype == request.inputs.front().dtype &&
        entry.device == request.device.kind && entry.can_run(request)) {
      return &entry;
    }
  }
  return Internal("no kernel for " + std::string(request.op) + " of " +
                  request.inputs.front().ToString() + " on " + DeviceName(request.device));
}

}  // namespace lepton::graph
