#include "runtime/graph/kernel_table.h"

namespace lepton::graph {
namespace {

const TensorType& FirstType(const KernelRequest& request) {
  return request.inputs.empty() ? request.outputs.front() : request.inputs.front();
}

bool Matches(const KernelEntry& entry, const KernelRequest& request) {
  return entry.op == request.op && entry.dtype == FirstType(request).dtype &&
         entry.device == request.device.kind && entry.can_run(request);
}

}  // namespace

Result<const KernelEntry*> KernelTable::Select(const KernelRequest& request) const {
  for (const KernelEntry& entry : entries_) {
    if (!request.followers.empty() && !entry.fuses) continue;
    if (Matches(entry, request)) return &entry;
  }
  return Internal("no kernel for " + std::string(request.op) + " of " +
                  FirstType(request).ToString() + " on " + DeviceName(request.device));
}

}  // namespace lepton::graph
