// The main function of a task process, which the agent starts. It reads StartTask from the socket,
// runs the task's kind, reports, and ends.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "worker/task_context.h"

namespace lepton::worker {

struct TaskProcessOptions {
  int fd = 3;                              // --fd: socket to the agent
  std::filesystem::path data_dir;          // --data-dir: root of the agent's object store
  std::string bind_address = "127.0.0.1";  // --bind: where its gang's data plane listens
};

// Returns the exit status: 0 when the kind returned OK, else 1, or 3 where the process will end
// without MPI_Finalize (MpiBackend::LeavesOpen). Call once, first thing in main: it
// sets up logging, signals and the compute threads, before any thread is made. Exceptions out
// of the kind end here as kInternal or kResourceExhausted.
int RunTaskProcess(const TaskProcessOptions& options, const std::vector<TaskKind>& kinds);

}  // namespace lepton::worker
