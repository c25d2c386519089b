// The task kinds "train" and "trial": one rank of a data-parallel training gang.
#pragma once

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Trains the spec's model on start().dataset_manifest(), reports progress and checkpoints, and sets
// the result: metrics and, on rank 0, the model. A trial is the same run cut into rungs by the
// spec's labels "lepton.stop_at_step" or "lepton.stop_at_epoch": it ends there with a checkpoint,
// metrics and a model, and the next rung resumes from the checkpoint.
// Errors: as of OpenSession and RunTrainLoop.
Status RunTrain(TaskContext& context);

}  // namespace lepton::worker
