// A worker: registers its slots with the coordinator, keeps its lease, and runs tasks in child
// processes that it can kill. A lost coordinator changes nothing for running tasks: what they
// report is kept in order and sent again after the next Welcome.
//
// Threads: Run on one thread, which must outlive the tasks (they die with it, PR_SET_PDEATHSIG).
//   Stop from any thread and from signal handlers.
// Processes: each task is `<task_command> --task ID --fd 3 --data-dir DIR --bind ADDRESS`, in a
//   process group of its own.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "runtime/wire/channel.h"

namespace lepton::worker {

// Who started this worker, and its place among its siblings.
struct LauncherInfo {
  std::string name = "none";  // mpirun, srun, none
  uint32_t rank = 0;
  uint32_t size = 1;
  std::string world;  // equal for all workers of one mpirun or srun
};
// From the environment that mpirun (PMIx, Open MPI) and srun give; touches no MPI library.
LauncherInfo DetectLauncher();

struct AgentOptions {
  std::string coordinator;  // "tcp://host:port"
  // Asked for that again, once a second while there is no connection: a coordinator that starts
  // anew may have another port. Empty, or what it says is: it stays. On Run's thread.
  std::function<std::string()> find_coordinator = {};
  wire::PoolKey key;
  std::string worker_id;  // empty: <host name>-<4 hex digits>
  uint32_t slots = 0;     // tasks of one slot that fit at once; 0: the cores it may run on
  std::string device = "cpu";
  // That this process sees. A task that asks for one has that with the fewest tasks, alone, by its
  // CUDA_VISIBLE_DEVICES (gpu_shares.h).
  uint32_t gpus = 0;
  std::string bf16_sums;  // the CPU's native order (runtime/kernels/cpu/bf16_sums.h)
  LauncherInfo launcher;
  std::map<std::string, std::string> labels;
  // Address of this host that peers can reach; tasks listen on it.
  std::string data_address = "127.0.0.1";
  // Objects that tasks read and write; shared by agents on a host if they are given the same one.
  // Empty: a temporary folder, removed at the end.
  std::filesystem::path data_dir;
  // What of it may stay when no task needs it any more: the rest can be fetched again. 0: no limit.
  uint64_t cache_limit_bytes = uint64_t{32} << 30;
  // Used within this time: it stays, for agents that share the folder.
  Duration cache_idle = std::chrono::minutes(5);
  // Where workers of this host agree on who has which CPUs (cpu_shares.h). Empty: tasks run
  // anywhere.
  std::filesystem::path cpu_folder = {};
  // Where they agree on who has which GPU. Empty: GpuShares::DefaultFolder().
  std::filesystem::path gpu_folder = {};
  // Program and first arguments of a task process. Empty: {"/proc/self/exe", "task"}.
  std::vector<std::string> task_command;
  // After SIGTERM a task has this long (unless StopTask says otherwise) before SIGKILL; at most 3 s
  // when the worker itself stops, but for a rank of a training, which then has its job's recovery
  // budget if that is longer, up to a minute.
  Duration stop_grace = std::chrono::seconds(3);
  // After its last word a task's process has this long to exit before SIGKILL; the word stands.
  Duration exit_limit = std::chrono::seconds(30);
  // Give up, stop all tasks and return kUnavailable after so long without a coordinator.
  Duration max_coordinator_silence = Duration::max();
};

class Agent {
 public:
  // kInvalidArgument: bad endpoint or keys; kPermissionDenied, kResourceExhausted: data_dir.
  static Result<std::unique_ptr<Agent>> Create(AgentOptions options);
  ~Agent();

  // Works until Stop (OK), the coordinator drains this worker (OK), it refuses the worker (its
  // status) or is silent for too long (kUnavailable). In every case all tasks have ended. A stop
  // takes less than 5 s, or a second more than a rank's time to leave; and as long as what tasks
  // left is being uploaded, at most a minute. A drain waits for all of that. Call once.
  Status Run();
  void Stop();

  const std::string& worker_id() const;
  uint32_t slots() const;

 private:
  class Loop;
  explicit Agent(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace lepton::worker
