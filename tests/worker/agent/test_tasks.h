// Small kinds of tasks. The test program runs them by starting itself with "task", and an agent
// that can be killed by starting itself with "agent".
#pragma once

#include <vector>

#include "worker/task_context.h"

namespace lepton::worker {

const std::vector<TaskKind>& TestTaskKinds();
// The whole of such a process; argv as for main. Returns its exit status.
int RunAsTask(int argc, char** argv);
int RunAsAgent(int argc, char** argv);

}  // namespace lepton::worker
