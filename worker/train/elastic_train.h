// A rank of an elastic training gang: it takes part in group after group, holding the state of the
// last committed step, until the training is done or it is told to go.
// Threads: the task's main thread.
#pragma once

#include "runtime/base/status.h"
#include "worker/train/train_session.h"

namespace lepton::worker {

// The training of `session` from where it stands to its stored model. context.membership() is not
// null. A group that breaks, or ends since ranks leave or join, costs at most the step in flight,
// which the next group does again with the same bits. Errors: as of RunTrainLoop, without those of
// peers; kCancelled when this rank was told to leave.
Status TrainElastically(TaskContext& context, const TrainSession& session);

}  // namespace lepton::worker
