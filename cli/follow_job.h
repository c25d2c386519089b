// Waiting for a job with something to look at meanwhile.
#pragma once

#include <functional>
#include <string>

#include "cli/api_client.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"

namespace lepton::cli {

bool IsFinal(const std::string& state);  // SUCCEEDED, FAILED, CANCELLED
// 0, 1 or 3 by the job's final state.
int JobExitStatus(const nlohmann::json& job);

// It is to exchange by MPI, nothing of it runs, and it can begin in no mpirun or srun that is
// there: MPI lost a rank in it, or a worker of it is gone or is not to be used. It goes on in
// another one.
bool WaitsForLauncher(const nlohmann::json& job);

// How long a job that is told to stop may take: 5 s, or what its ranks have to end their step and
// hand over (elastic.recovery_budget, at most a minute) and a little.
Duration StopPatience(const nlohmann::json& job);

struct FollowLimits {
  Duration call = std::chrono::seconds(10);     // of one answer
  Duration away = std::chrono::minutes(1);      // of a coordinator, from the first call that failed
  Duration launcher = std::chrono::seconds(5);  // of an mpirun or srun that the job waits for
};

// Waits until the job is final, showing its progress on standard error. `stop` is asked every 400
// ms; when it says true the job is cancelled, and the wait goes on until that is done (at most
// StopPatience). With `put_off` that is called instead, and the job may also be QUEUED in the end,
// or a search without a trial that runs: then, and when it waits for an mpirun or srun to begin
// under (WaitsForLauncher). Rides over a coordinator that is away for up to a minute.
Result<nlohmann::json> FollowJob(
    ApiClient& client, const std::string& job_id,
    const std::function<bool()>& stop = [] { return false; },
    const std::function<Status()>& put_off = nullptr, const FollowLimits& limits = {});

// The id of the one job of `lepton run`; there its name says more.
inline constexpr const char* kRunId = "run";

// "model digits@1 sha256:... workers=2 steps=460 test/accuracy=0.9750", or "job ask SUCCEEDED
// workers=2 file=predictions.csv rows=80" where no model was made: a job's last line.
std::string ResultLine(const nlohmann::json& job, size_t workers);
// That line on standard output, and on standard error why the job did not succeed.
void PrintEnd(const nlohmann::json& job);

}  // namespace lepton::cli
