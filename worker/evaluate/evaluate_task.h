// The task kind "evaluate": how a registered model does on a dataset.
#pragma once

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Measures start().model_manifest() on the test part of start().dataset_manifest(), or on all rows
// when the split leaves no test part. Columns beyond the model's features are left out.
// Result: metrics "test/loss", "test/rows" and "test/accuracy" with "recall/<class>" for each class
// that has rows, or "test/mse" and "test/r2", or of a language model "test/perplexity",
// "test/accuracy" and "test/tokens"; no model.
// Errors: kInvalidArgument for a feature that the data lacks or a class unseen in training.
Status RunEvaluate(TaskContext& context);

}  // namespace lepton::worker
