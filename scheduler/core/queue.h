// Who is served next: strictly in queue order (priority, then recovered jobs, then first come), one
// queue per device. The first job that must wait for slots holds up all behind it, so a large gang
// is never starved by small ones; there is no backfill. A job that could not run even if the whole
// pool were idle holds up nobody.
// Threads: pure functions of the state.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/core/inputs.h"
#include "scheduler/core/state.h"
#include "scheduler/placement/placement.h"

namespace lepton::scheduler {

// One per worker that is up. Those in `away` have nothing free. With `deployment`, Seat::load
// counts its replicas.
std::vector<placement::Seat> SeatsOf(const State& state, const std::set<WorkerId>& away,
                                     const std::string& deployment = "");

// One per worker that is known, as if nothing ran: also those that were lost of late, which may be
// back in a moment. What does not fit there is more than the pool has.
std::vector<placement::Seat> PoolSeats(const State& state);

placement::GangRequest RequestOf(const spec::JobSpec& spec, const Job& job);

// What the reactor says to a new submission: kFailedPrecondition when the pool has not so much at
// all, kInvalidArgument for what it cannot run.
Status CheckSubmit(const State& state, const SubmitJob& submit);

// A gang of so many ranks exchanges by MPI. One alone, and ranks that never meet, do without.
bool UsesMpi(const spec::JobSpec& spec, int ranks);

// Its tasks are to have a GPU: to compute on, or for their collectives.
bool UsesGpu(const spec::JobSpec& spec);

// Why a job that is to exchange by MPI, and of which nothing runs, can begin in no mpirun or srun
// of which all workers are up: it waits for another one. Empty: it can, or it needs none.
std::string AwaitedLauncher(const State& state, const JobId& id);

// The first trial that was asked for and may start now.
std::optional<int> PendingTrial(const Job& job, int64_t now_ms);
// Whether an active tune job would start one more trial if it had the slots.
bool WantsTrial(const State& state, const JobId& id, int64_t now_ms);

// The objects that a task of the job needs, and those of the newest checkpoint.
void FillInputs(const JobInputs& inputs,
                const google::protobuf::RepeatedPtrField<Checkpoint>& checkpoints,
                wire::StartTask* start);

}  // namespace lepton::scheduler
