#include "cli/follow_job.h"

#include <algorithm>
#include <cstdio>
#include <thread>

#include "cli/output.h"
#include "runtime/base/config.h"

namespace lepton::cli {

using nlohmann::json;

bool IsFinal(const std::string& state) {
  return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
}

int JobExitStatus(const json& job) {
  const std::string state = Text(job, "state");
  if (state == "SUCCEEDED") return kExitOk;
  return state == "CANCELLED" ? kExitCancelled : kExitFailed;
}

// Of a job whose workers were told to leave. A search has a place of its own in no queue: its
// trials have.
static bool IsPutOff(const json& job) {
  return Text(job, "state") == "QUEUED" ||
         (job.contains("search") && Number(job, "search.running") == 0);
}

bool WaitsForLauncher(const json& job) {
  return job.value("awaits_launcher", false);
}

Duration StopPatience(const json& job) {
  using std::chrono::seconds;
  constexpr Duration kLeast = seconds(5), kMostBudget = seconds(60), kAround = seconds(2);
  const auto budget = ParseDuration(Text(job, "spec.elastic.recovery_budget"));
  return budget.ok() ? std::max<Duration>(kLeast, std::min(*budget, kMostBudget) + kAround)
                     : kLeast;
}

Result<json> FollowJob(ApiClient& client, const std::string& job_id,
                       const std::function<bool()>& stop, const std::function<Status()>& put_off,
                       const FollowLimits& limits) {
  ProgressLine progress;
  const std::string target = "/v1/jobs/" + UrlEncode(job_id);
  // Answered when the job is over, else after this time: the end is seen at once, and what the
  // following costs a job on the same cores is a few calls a second.
  const std::string waiting = target + "?wait=400ms";
  // From the first call that fails: one who was stopped in a call (Ctrl-Z) has been away for longer
  // than any coordinator may be, and asks again.
  auto back_by = Deadline::Never();
  auto stopped_by = Deadline::Never();
  auto launched_by = Deadline::Never();  // workers of a new one may be on their way
  bool stopping = false;
  json last;
  for (bool first = true;; first = false) {
    if (!stopping && stop()) {
      stopping = true;
      stopped_by = Deadline::In(StopPatience(last));
      const Status asked =
          put_off ? put_off() : client.Send("POST", target + ":cancel", nullptr).status();
      if (!asked.ok()) return asked;
    }
    const Result<json> job = client.Get(first || stopping ? target : waiting, limits.call);
    if (job.ok()) {
      const std::string state = Text(*job, "state");
      if (IsFinal(state) || (stopping && put_off && IsPutOff(*job))) return job;
      if (!put_off || !WaitsForLauncher(*job)) {
        launched_by = Deadline::Never();
      } else if (launched_by.Expired()) {
        return job;
      } else {
        launched_by = Deadline(std::min(launched_by.at(), Deadline::In(limits.launcher).at()));
      }
      progress.Show(ProgressText(*job));
      last = *job;
      back_by = Deadline::Never();
    } else if (job.status().code() != StatusCode::kUnavailable &&
               job.status().code() != StatusCode::kDeadlineExceeded) {
      return job.status();
    } else {
      progress.Show("waiting for the coordinator to come back");
      back_by = Deadline(std::min(back_by.at(), Deadline::In(limits.away).at()));
    }
    if (back_by.Expired() || stopped_by.Expired()) {
      return job.ok() ? DeadlineExceeded("job " + job_id + " did not stop in time") : job.status();
    }
    if (stopping || !job.ok()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::string ResultLine(const json& job, size_t workers) {
  const json result = job.value("result", json::object());
  std::string line;
  if (!Text(result, "weights_sha256").empty() && Text(result, "weights_sha256") != "-") {
    std::string name = Text(result, "model");
    if (name == "-") name = Text(job, "name");
    const auto version = static_cast<int64_t>(Number(result, "version"));
    line = "model " + name + (version > 0 ? "@" + std::to_string(version) : "") +
           " sha256:" + Text(result, "weights_sha256");
  } else {
    const std::string id = Text(job, "id"), name = Text(job, "name");
    line = "job " + (id == kRunId ? name : id + " " + name) + " " + Text(job, "state");
  }
  line += " workers=" + std::to_string(workers);
  // Of a search without a result its progress counts trials.
  const double told = job.contains("search") ? 0 : Number(job, "progress.step");
  const auto steps = static_cast<int64_t>(Number(result, "steps", told));
  const json files = result.value("files", json::array());
  if (steps > 0 && files.empty()) line += " steps=" + std::to_string(steps);
  for (const json& file : files) line += " file=" + file.get<std::string>();
  const json metrics = result.value("metrics", job.value("metrics", json::object()));
  for (const auto& [key, value] : metrics.items()) {
    if (value.is_number()) line += " " + key + "=" + Text(metrics, key);
  }
  return line;
}

void PrintEnd(const json& job) {
  if (JobExitStatus(job) != kExitOk) {
    std::fprintf(stderr, "lepton: job %s %s: %s\n", Text(job, "id").c_str(),
                 Text(job, "state").c_str(), Text(job, "reason").c_str());
  }
  // Of the group: the tasks are those of the past too.
  std::printf("%s\n", ResultLine(job, static_cast<size_t>(Number(job, "group.ranks"))).c_str());
}

}  // namespace lepton::cli
