// The task kind "infer": one replica of a deployment.
#pragma once

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Loads the model, warms up, serves HTTP on start().replica_bind() at a port of its own, reports
// ready, and returns kCancelled after stop_requested(), once it has drained: readiness off, then
// all requests in flight answered (for at most start().stop_grace_ms()).
Status RunInfer(TaskContext& context);

}  // namespace lepton::worker
