#include "runtime/graph/kernel_table.h"

namespace lepton::graph {

Result<const KernelEntry*> KernelTable::Select(const KernelRequest& request) const {
  const TensorType& type =
      request.inputs.empty() ? request.outputs.front() : request.inputs.front();
  for (const KernelEntry& entry : entries_) {
    if (entry.op == request.op && entry.dtype == type.dtype &&
        entry.device == request.device.kind && entry.can_run(request)) {
      return &entry;
    }
  }
  return Internal("no kernel for " + std::string(request.op) + " of " + type.ToString() + " on " +
                  DeviceName(request.device));
}

}  // namespace lepton::graph
