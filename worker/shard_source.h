// Where a task's work comes from when its data is cut in shards: docs/decisions/shards.md.
// Threads: all from the task's main thread, but for what an implementation adds.
#pragma once

#include <cstdint>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"

namespace lepton::worker {

struct Shard {
  uint32_t index = 0;
  int64_t first = 0;  // rows [first, last)
  int64_t last = 0;
};

class ShardSource {
 public:
  virtual ~ShardSource() = default;

  // The data is prepared: so many rows, which this rank would cut so. An earlier rank's cut rules.
  virtual void Ready(int64_t rows, int64_t shard_rows) = 0;

  // What to do next. Waits until there is something. kCancelled: told to stop, or to leave, which
  // is also how the work ends: the coordinator stops all when every shard is done. kDataLoss: other
  // ranks have another number of rows.
  virtual Result<Shard> Next() = 0;

  // Whether to go on with a shard that takes `left` more, by the pace so far. kCancelled: told to
  // stop, or to leave before it would be done. kAborted: another rank has done it; ask for the
  // next.
  virtual Status GoOn(const Shard& shard, Duration left) = 0;

  // Its lines are in an object of the worker's store.
  virtual void Done(const wire::TaskShardDone& done) = 0;
};

}  // namespace lepton::worker
