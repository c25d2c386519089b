// Which rank of a sharded gang does which shards next (docs/decisions/shards.md). Every undone
// shard is in some hand at any time, so that ranks go on while the coordinator is away; what is
// dealt again after a death, a join or an empty hand is what nobody has begun, as far as is known.
// Sources: MapReduce (Dean and Ghemawat, OSDI 2004, section 3.6: backup tasks), Spark
// (spark.speculation.multiplier: 1.5 medians), Cilk (half of the richest one's tail is stolen).
// Threads: pure.
#pragma once

#include <cstdint>
#include <vector>

namespace lepton::scheduler {

// What a living rank has to do, in order. The first shard is in progress.
struct ShardHand {
  uint32_t seat = 0;
  std::vector<uint32_t> shards;  // none twice
  int64_t since_ms = 0;          // since when the first is in progress
  bool leaving = false;          // it may end what it has begun, and gets nothing more
};

struct ShardDeal {
  std::vector<uint32_t> changed;  // seats whose hand is another now
  std::vector<uint32_t> late;     // shards that are now in progress twice
};

// How long a shard may be in progress before an idle rank does it too: 1.5 times the median of
// `took_ms`; the largest value when nothing is known yet.
int64_t ShardLatenessMs(std::vector<int64_t> took_ms);

// Changes `hands` so that
//   - each of `undone` (ascending) is in a hand, if anybody stays;
//   - no rank that stays is idle while another holds a shard that is not in progress;
//   - one that would be idle still does the shard with the fewest ranks on it, of these the one
//     that is in progress for longest, if it is late: for longer than `late_ms`.
// A shard in progress is never taken away. Shards of nobody go where hands are shortest.
ShardDeal DealShards(const std::vector<uint32_t>& undone, int64_t now_ms, int64_t late_ms,
                     std::vector<ShardHand>* hands);

// When DealShards would next make a difference without anything else happening; the largest value
// when never.
int64_t NextLateMs(const std::vector<ShardHand>& hands, int64_t now_ms, int64_t late_ms);

}  // namespace lepton::scheduler
