// Why a task or a gang ended, and what must follow from it. Pure.
#pragma once

#include <string>

#include "runtime/base/status.h"
#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

// Reason of a job that waits for another mpirun or srun, since MPI lost a rank in its own.
inline constexpr char kMpiOver[] = "MPI_OVER";

// What the end of a gang means.
struct Verdict {
  enum class Kind {
    kSucceeded,
    kWorkerFault,  // a worker, a signal: start again
    kTaskFault,    // the task said so: start again, counted apart
    kMoved,        // we took its place away: start again, not counted
    kRefused,      // a worker had no place for it: start again a little later, not counted
    kFatal,        // starting again would end the same way
    kStopped,      // we wanted it gone
  };
  Kind kind = Kind::kStopped;
  std::string reason_code;
  std::string error_code;
  std::string cause;
  bool mpi_over = false;  // LeftMpiOpen
};
Verdict JudgeGang(const Gang& gang);
// The same for one task, as if it had been alone.
Verdict JudgeTask(const Task& task);
// What ended that task need not end others that hold the same state. No room for a checkpoint is of
// that kind: they have disks of their own.
bool OthersMayGoOn(const Verdict& verdict);
// The caller's input is to blame: it would fail again.
bool IsFatal(StatusCode code);

// Its ranks were through MPI_Init, and not all of them came to MPI_Finalize: no process of their
// launcher gets through MPI_Init again (Open MPI 4.1: its fences wait for who is gone).
bool LeftMpiOpen(const Gang& gang);

bool EndedWell(const Task& task);
// Its GPU failed under it.
bool LostItsDevice(const Task& task);
// "rank 1 on worker w-2: killed by signal 9".
std::string Describe(const Task& task);
// The first task, by rank, for which `is` holds; null if there is none.
const Task* FirstWhere(const Gang& gang, bool (*is)(const Task&));

}  // namespace lepton::scheduler
