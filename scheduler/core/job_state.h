// The life of a job, as a table that the code executes.
//
//            1              2              3               9
//   (new) ------> QUEUED ------> STARTING ------> RUNNING ------> SUCCEEDED
//                  ^  |            |  |            |  |
//                6 |  |          4 |  |          5 |  |
//                  |  |            v  |            v  |
//                  |  |        RECOVERING <--------+  |
//                  +--|------------+  |               |
//                     |               |               |
//                     |  7            v               |
//                     +--------> STOPPING <-----------+
//                                  |    |
//                               8  v    v  8
//                             FAILED  CANCELLED
//
//   1 submitted               4, 5 a rank or its worker was lost: the gang is stopped, back-off
//   2 all ranks placed        6 back-off over and every task gone: wait for slots, at the front
//   3 all ranks run           7 cancel, deadline or an error that no retry cures, while tasks live
//   9 rank 0 finished well    8 every task is gone
//
// From any state without living tasks the job goes to FAILED or CANCELLED directly. SUCCEEDED,
// FAILED and CANCELLED are for ever.
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
