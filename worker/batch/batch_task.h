// The task kind "batch": what a registered model says of every row of a dataset, as one file.
#pragma once

#include <cstdint>

#include "runtime/base/status.h"
#include "worker/task_context.h"

namespace lepton::worker {

// Asks start().model_manifest() about start().dataset_manifest(), one shard of rows after another,
// as context.shards() says; each is an object of lines, with the file's header in front of the
// first row's. The objects in the order of their shards are the file (prediction_writer.h has its
// columns), whoever did them: a row's line depends on the row and on its place in blocks of a fixed
// size.
//
// Returns when told to stop or to leave (kCancelled), which is also how the work ends, or with an
// error: as of an evaluation, but that no label is asked for; kDataLoss: the data is not what other
// ranks have; kResourceExhausted: no room for a shard's lines.
Status RunBatch(TaskContext& context);

// Rows of a shard: `asked`, or for 0 by the data; whole blocks, and no more than 16,384 shards.
// `together`: how many cost hardly more than one, so that a smaller shard is made only for a worker
// that would have none.
int64_t ShardRows(int64_t asked, int64_t rows, int64_t block_rows, int64_t together,
                  int max_workers);

}  // namespace lepton::worker
