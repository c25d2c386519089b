#include "worker/train/train_task.h"

#include <fmt/format.h>

#include "worker/train/elastic_train.h"
#include "worker/train/train_session.h"

namespace lepton::worker {

Status RunTrain(TaskContext& context) {
  LEPTON_ASSIGN_OR_RETURN(TrainSession session, OpenSession(context));
  if (session.first_step > session.stop_step) {
    const char* const field = session.stop_step < session.total_steps
                                  ? "labels.lepton.stop_at_step or .stop_at_epoch"
                              : context.spec().steps > 0 ? "steps"
                                                         : "epochs";
    return FailedPrecondition(fmt::format(
        "{}: the run ends at step {}, but the checkpoint that it goes on from is of step "
        "{}: raise {}, or begin without the checkpoint",
        field, session.stop_step, session.first_step, field));
  }
  if (context.membership() != nullptr) return TrainElastically(context, session);
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<collectives::Communicator> gang,
                          context.JoinGang());
  LEPTON_ASSIGN_OR_RETURN(const std::unique_ptr<TensorGang> tensor,
                          TensorGang::Join(context, *gang));
  session.program->JoinTensorGroup(tensor.get());
  TaskObserver observer(context, session);
  const TrainRun run = {.spec = context.spec(),
                        .data = session.data,
                        .program = *session.program,
                        .outer = session.outer.get(),
                        .gang = *gang,
                        .tensor = tensor.get(),
                        .first_step = session.first_step,
                        .first_samples = session.first_samples,
                        .first_epoch_loss = session.first_epoch_loss,
                        .last_step = session.stop_step,
                        .checkpoint_at_end = context.start().kind() == "trial",
                        .resumed_from = context.start().resume_checkpoint(),
                        .first_state = session.first_state};
  // It has the weights until the model is stored (parallel.zero: 3).
  TrainLoop loop(run, observer);
  LEPTON_RETURN_IF_ERROR(loop.Enter(*gang, /*has_state=*/true).status());
  LEPTON_ASSIGN_OR_RETURN(const TrainOutcome outcome, loop.Run());
  return FinishSession(context, session, outcome, {}, *gang, tensor.get());
}

}  // namespace lepton::worker
