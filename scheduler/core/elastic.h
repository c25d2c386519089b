// Who is who in a gang that outlives its ranks (docs/decisions/elastic-epochs.md), for the reactor
// and the fold. In a gang that is not elastic every task is a member, and rank 0 leads.
// Threads: pure.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/spec/job_spec.h"
#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

// The job's tasks train, and show that they move (runtime/base/progress.h).
bool IsTraining(const spec::JobSpec& spec);
// Its ranks take shards of the data and never meet (shard_deal.h).
bool IsSharded(const spec::JobSpec& spec);
// Whether a gang of this job, or of its trials, goes on when a rank is lost.
bool IsElastic(const spec::JobSpec& spec);

bool IsMember(const Gang& gang, const Task& task);
// The rank whose progress and result count.
bool IsLeader(const Gang& gang, const Task& task);
// It forms groups: it is neither stopped nor through.
bool Goes(const Gang& gang);
// Its process runs, as far as is known. One that is alive and not up has ended, and what it left is
// on its way.
bool IsUp(const Task& task);
// Such a one that did its work.
bool IsThrough(const Task& task);
// Such a one whose last report the others wait for: it says what becomes of all of them.
bool IsAwaited(const Task& task);
// It is no joiner that is to get the training state from the first group that it is in.
bool MayHaveState(const Task& task);
// It has listed itself since it was last sent a group; a rank that takes shards: it does so.
bool IsListening(const Task& task);

int64_t BudgetMs(const spec::JobSpec& spec);
// Until when a member of a forming epoch must have listed itself; 0: no hurry yet. One that says
// that it computes still is waited for.
int64_t FormingDeadline(const Gang& gang, const Task& member, int64_t budget_ms);

}  // namespace lepton::scheduler
