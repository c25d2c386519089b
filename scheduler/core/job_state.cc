#include "scheduler/core/job_state.h"

#include <array>
#include <string>

namespace lepton::scheduler {
namespace {

struct Transition {
  JobState from;
  JobState to;
};

constexpr Transition kTransitions[] = {
    {JOB_STATE_UNSPECIFIED, JOB_QUEUED},  // 1
    {JOB_QUEUED, JOB_STARTING},           // 2
    {JOB_STARTING, JOB_RUNNING},          // 3
    {JOB_STARTING, JOB_RECOVERING},       // 4
    {JOB_RUNNING, JOB_RECOVERING},        // 5
    {JOB_RECOVERING, JOB_RECOVERING},     // 6
    {JOB_RECOVERING, JOB_QUEUED},         // 7
    {JOB_STARTING, JOB_STOPPING},         // 8
    {JOB_RUNNING, JOB_STOPPING},         {JOB_RECOVERING, JOB_STOPPING},
    {JOB_STOPPING, JOB_FAILED},                                         // 9
    {JOB_STOPPING, JOB_CANCELLED},       {JOB_RUNNING, JOB_SUCCEEDED},  // 10
    {JOB_RECOVERING, JOB_SUCCEEDED},     {JOB_QUEUED, JOB_FAILED},      // 11
    {JOB_STARTING, JOB_FAILED},          {JOB_RUNNING, JOB_FAILED},
    {JOB_RECOVERING, JOB_FAILED},        {JOB_QUEUED, JOB_CANCELLED},
    {JOB_STARTING, JOB_CANCELLED},       {JOB_RUNNING, JOB_CANCELLED},
    {JOB_RECOVERING, JOB_CANCELLED},
};

// The enumerators' names without their prefix: "JOB_QUEUED" is QUEUED to people.
std::string_view Bare(std::string_view name, std::string_view prefix) {
  if (name.substr(0, prefix.size()) == prefix) name.remove_prefix(prefix.size());
  return name.empty() || name == "STATE_UNSPECIFIED" ? "NONE" : name;
}

}  // namespace

std::string_view JobStateName(JobState state) {
  return Bare(JobState_Name(state), "JOB_");
}

JobState JobStateFromName(std::string_view name) {
  JobState state = JOB_STATE_UNSPECIFIED;
  if (!JobState_Parse("JOB_" + std::string(name), &state)) return JOB_STATE_UNSPECIFIED;
  return state;
}

std::string_view TaskStateName(TaskState state) {
  return Bare(TaskState_Name(state), "TASK_");
}
std::string_view GangStateName(GangState state) {
  return Bare(GangState_Name(state), "GANG_");
}
std::string_view TrialStateName(TrialState state) {
  return Bare(TrialState_Name(state), "TRIAL_");
}
std::string_view WorkerStateName(WorkerState state) {
  return Bare(WorkerState_Name(state), "WORKER_");
}
std::string_view DeploymentStateName(DeploymentState state) {
  return Bare(DeploymentState_Name(state), "DEPLOYMENT_");
}

bool IsTerminal(JobState state) {
  return state == JOB_SUCCEEDED || state == JOB_FAILED || state == JOB_CANCELLED;
}

bool CanMove(JobState from, JobState to) {
  for (const Transition& transition : kTransitions) {
    if (transition.from == from && transition.to == to) return true;
  }
  return false;
}

}  // namespace lepton::scheduler
