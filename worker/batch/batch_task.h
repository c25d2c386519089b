// The task kind "batch": what a registered model says of every row of a dataset, as one file.
#pragma once

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Asks start().model_manifest() about start().dataset_manifest(). Rows are taken in rounds; in each
// the ranks compute a share each and rank 0 appends their answers in order, so the file has the
// same bytes for any number of ranks. Every few seconds rank 0 stores what it has and reports it as
// a checkpoint; a restart goes on behind it.
//
// Result: files "predictions.csv" or "predictions.jsonl" (prediction_writer.h has the columns),
// metrics "rows", and of a language model "loss" and "perplexity" over all of them.
// Errors: as of an evaluation, but that no label is asked for.
Status RunBatch(TaskContext& context);

}  // namespace lepton::worker
