// Every kind of task that a worker can run. To add one: its folder with a Run function, a row here,
// its target in CMakeLists.txt.
#include "worker/batch/batch_task.h"
#include "worker/distill/distill_task.h"
#include "worker/evaluate/evaluate_task.h"
#include "worker/infer/infer_task.h"
#include "worker/task_context.h"
#include "worker/train/train_task.h"

namespace lepton::worker {

const std::vector<TaskKind>& TaskKinds() {
  static const std::vector<TaskKind> kinds = {
      {"train", RunTrain},       {"trial", RunTrain}, {"distill", RunDistill},
      {"evaluate", RunEvaluate}, {"batch", RunBatch}, {"infer", RunInfer},
  };
  return kinds;
}

}  // namespace lepton::worker
