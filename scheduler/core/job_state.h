// The life of a job, as a table that the code executes (kTransitions in job_state.cc).
//
//            1              2                3                10
//   (new) ------> QUEUED ------> STARTING ------> RUNNING ----------> SUCCEEDED
//                   ^                |               |                    ^
//                   |              4 |             5 |                    | 10
//                   |                v               v                    |
//                   |      7     +---------------------+                  |
//                   +----------- |     RECOVERING      | -----------------+
//                                +---------------------+
//                                    |  ^      6
//                                    +--+
//
//   STARTING, RUNNING, RECOVERING --8--> STOPPING --9--> FAILED or CANCELLED
//   QUEUED, STARTING, RUNNING, RECOVERING ----11-------> FAILED or CANCELLED
//
//    1 submitted
//    2 every rank has its place (a new attempt); a tune job: its first trial has
//    3 every rank runs
//    4 5 a rank, or a worker under it, was lost: the rest of the gang is being stopped
//    6 every task is gone: the restart is counted and its back-off begins
//    7 the back-off is over, or MPI is where it was: wait for a place, before equals
//    8 cancel, deadline, or an error that no retry cures, while tasks live
//    9 every task is gone
//   10 rank 0 finished well and every task is gone
//   11 as 8, when no task lives
//
// SUCCEEDED, FAILED and CANCELLED are for ever. Any other move is refused.
#pragma once

#include <string_view>

#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

// "QUEUED" and so on: the spelling of HTTP and CLI. "NONE" for JOB_STATE_UNSPECIFIED.
std::string_view JobStateName(JobState state);
// JOB_STATE_UNSPECIFIED for an unknown name.
JobState JobStateFromName(std::string_view name);
std::string_view TaskStateName(TaskState state);
std::string_view GangStateName(GangState state);
std::string_view TrialStateName(TrialState state);
std::string_view WorkerStateName(WorkerState state);
std::string_view DeploymentStateName(DeploymentState state);

bool IsTerminal(JobState state);
bool CanMove(JobState from, JobState to);

}  // namespace lepton::scheduler
