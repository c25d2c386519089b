// The task kind "distill": trains a small student to say what a registered teacher says (Hinton,
// Vinyals and Dean 2015), and measures what that was worth.
#pragma once

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Three steps, each by the whole gang:
//   1. the teacher's logits for all training examples as they are (pictures without augmentation),
//      once;
//   2. the student on soft targets and labels (the training loop, with checkpoints);
//   3. the same student alone, from the same first weights, for the same steps, on labels only.
// The result's model is the distilled student. Its metrics are a training's ("test/accuracy" is the
// distilled student's) and "teacher/accuracy", "student_alone/accuracy" on the same test rows,
// "teacher/parameters", "student/parameters".
// Errors: kInvalidArgument when the teacher is no classifier or has other features or classes than
// the dataset, naming the first difference; else as of RunTrain.
Status RunDistill(TaskContext& context);

}  // namespace lepton::worker
