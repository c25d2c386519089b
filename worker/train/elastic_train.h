// A rank of an elastic training gang: it takes part in group after group, holding the state of the
// last committed step, until the training is done or it is told to go.
// Threads: the task's main thread.
#pragma once

#include <span>

#include "runtime/base/status.h"
#include "worker/train/train_session.h"

namespace lepton::worker {

// What a kind of training does in a group besides the loop. Collective calls, in every group anew;
// an error of peers means that the next group does it again. Bits must not depend on the group.
class GroupWork {
 public:
  virtual ~GroupWork() = default;
  // Before the loop.
  virtual Status Begin(collectives::Communicator& gang) = 0;
  // Constant after the first Begin.
  virtual std::span<const float> teacher_logits() const = 0;
  // Behind the loop: further figures.
  virtual Result<Metrics> End(collectives::Communicator& gang) = 0;
};

// The training of `session` from where it stands to its stored model. context.membership() is not
// null. A group that breaks, or ends since ranks leave or join, costs at most the step in flight,
// which the next group does again with the same bits. Errors: as of RunTrainLoop, without those of
// peers; kCancelled when this rank was told to leave. `work` may be null.
Status TrainElastically(TaskContext& context, const TrainSession& session,
                        GroupWork* work = nullptr);

}  // namespace lepton::worker
