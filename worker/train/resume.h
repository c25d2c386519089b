// A training's state from a checkpoint.
// Threads: one caller.
#pragma once

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "storage/objects/object_store.h"
#include "worker/train/train_session.h"

namespace lepton::worker {

// Weights and optimiser's state of what of them the session's program has, and its first step,
// whatever the number of ranks that wrote it. `objects` and `digest` outlive the session.
// kFailedPrecondition: it is of another seed or another model; else as of ReadCheckpoint.
Status Resume(const storage::ObjectStore& objects, const storage::Digest& digest,
              const spec::JobSpec& spec, TrainSession& session);

}  // namespace lepton::worker
