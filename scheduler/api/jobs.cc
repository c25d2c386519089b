#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "scheduler/api/handlers.h"
#include "scheduler/api/paging.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/queue.h"

namespace lepton::api {
namespace {

using nlohmann::json;

Result<scheduler::JobState> ParseState(const std::string& field, const std::string& name) {
  const auto state = scheduler::JobStateFromName(name);
  if (name.empty() || state != scheduler::JOB_STATE_UNSPECIFIED) return state;
  return InvalidArgument(fmt::format(
      "{}: \"{}\" is no job state: use QUEUED, STARTING, RUNNING, RECOVERING, STOPPING, SUCCEEDED, "
      "FAILED or CANCELLED",
      field, name));
}

struct JobFilter {
  scheduler::JobState state = scheduler::JOB_STATE_UNSPECIFIED;
  std::string kind, label_key, label_value;
  bool any_value = true;
  uint64_t before = UINT64_MAX;  // submit_seq
  int64_t limit = 100;

  bool Matches(const scheduler::Job& job) const {
    if (job.submit_seq() >= before) return false;
    if (state != scheduler::JOB_STATE_UNSPECIFIED && job.state() != state) return false;
    if (!kind.empty() && job.kind() != kind) return false;
    if (label_key.empty()) return true;
    const json spec = json::parse(job.spec_json(), nullptr, false);
    const json labels = spec.is_object() ? spec.value("labels", json::object()) : json::object();
    const auto found = labels.find(label_key);
    return found != labels.end() && (any_value || *found == label_value);
  }
};

Result<JobFilter> ParseFilter(const http::Request& request) {
  JobFilter filter;
  LEPTON_ASSIGN_OR_RETURN(filter.state, ParseState("state", QueryText(request, "state")));
  filter.kind = QueryText(request, "kind");
  const std::vector<std::string_view> kinds = spec::JobKindNames();
  if (!filter.kind.empty() && std::find(kinds.begin(), kinds.end(), filter.kind) == kinds.end()) {
    return InvalidArgument(
        fmt::format("kind: \"{}\" is no kind of job: use {}", filter.kind, fmt::join(kinds, ", ")));
  }
  const std::string label = QueryText(request, "label");
  const size_t equals = label.find('=');
  filter.label_key = label.substr(0, equals);
  filter.any_value = equals == std::string::npos;
  if (!filter.any_value) filter.label_value = label.substr(equals + 1);
  LEPTON_ASSIGN_OR_RETURN(filter.limit, QueryInt(request, "limit", 100, 1, 1000));
  LEPTON_ASSIGN_OR_RETURN(const int64_t cursor,
                          QueryInt(request, "cursor", INT64_MAX, 1, INT64_MAX));
  if (cursor != INT64_MAX) filter.before = static_cast<uint64_t>(cursor);
  return filter;
}

// Newest first.
json JobPage(const scheduler::State& state, const JobFilter& filter) {
  std::vector<const scheduler::Job*> found;
  for (const auto& [id, job] : state.jobs) {
    if (filter.Matches(job)) found.push_back(&job);
  }
  std::sort(found.begin(), found.end(),
            [](const auto* a, const auto* b) { return a->submit_seq() > b->submit_seq(); });
  const bool any_queued = std::any_of(found.begin(), found.end(), [](const auto* job) {
    return job->state() == scheduler::JOB_QUEUED;
  });
  const auto waiting =
      any_queued ? scheduler::WaitingReasons(state) : std::map<JobId, std::string>();
  const size_t count = std::min(found.size(), static_cast<size_t>(filter.limit));
  json items = json::array();
  for (size_t i = 0; i < count; ++i) items.push_back(JobView(state, *found[i], waiting, false));
  const bool more = count < found.size();
  return {{"items", std::move(items)},
          {"next_cursor", more ? std::to_string(found[count - 1]->submit_seq()) : ""}};
}

json OneJob(const scheduler::State& state, const scheduler::Job& job) {
  std::map<JobId, std::string> waiting;
  const JobId id(job.id());
  if (job.state() == scheduler::JOB_QUEUED) waiting[id] = scheduler::WaitingReason(state, id);
  const std::string launcher = scheduler::AwaitedLauncher(state, id);
  if (!launcher.empty()) waiting[id] = launcher;
  json view = JobView(state, job, waiting, true);
  if (!launcher.empty()) view["awaits_launcher"] = true;
  return view;
}

// On the state loop; the answer is sent from the pool.
void SendJob(Api& api, const http::ResponderPtr& responder, const scheduler::State& state,
             const scheduler::Job& job) {
  const auto view = std::make_shared<json>(OneJob(state, job));
  api.parts().pool.Submit([&api, responder, view] {
    FillResult(api.parts().objects, *view);
    SendJson(responder, 200, *view);
  });
}

// A long poll for a state that a job has reached, or for any final one.
struct Wait {
  JobId id;
  scheduler::JobState until = scheduler::JOB_STATE_UNSPECIFIED;
  http::ResponderPtr responder;
  bool answered = false;

  bool Over(const scheduler::Job& job) const {
    return scheduler::IsTerminal(job.state()) || job.state() == until;
  }
};

void StartWait(Api& api, const std::shared_ptr<Wait>& wait, Duration limit) {
  const auto answer = [&api, wait](const scheduler::State& state) {
    if (std::exchange(wait->answered, true)) return;
    const scheduler::Job* job = state.FindJob(wait->id);
    if (job == nullptr) return SendProblem(wait->responder, state.NoJob(wait->id));
    SendJob(api, wait->responder, state, *job);
  };
  api.parts().loop.Read([&api, wait, limit, answer](const scheduler::State& state) {
    const scheduler::Job* job = state.FindJob(wait->id);
    if (job == nullptr || wait->Over(*job) || limit.count() <= 0) return answer(state);
    const uint64_t ticket =
        api.parts().watch.Watch(wait->id, [&api, wait, answer](const scheduler::State& now) {
          const scheduler::Job* current = now.FindJob(wait->id);
          if (wait->answered || wait->responder->cancelled()) return false;
          const bool over = current == nullptr || wait->Over(*current);
          if (!over && !api.parts().watch.closing()) return true;
          answer(now);
          return false;
        });
    api.parts().loop.After(limit, [&api, wait, ticket, answer](const scheduler::State& now) {
      api.parts().watch.Forget(wait->id, ticket);
      answer(now);
    });
  });
}

// A page of what belongs to a job; make(state, job, page) runs on the state loop.
template <typename Make>
void SendPage(Api& api, const http::Request& request, http::ResponderPtr responder, Make make) {
  const auto page = ParseNumberedPage(request);
  if (!page.ok()) return SendProblem(responder, page.status());
  api.parts().loop.Read(
      [page = *page, id = Param(request, "id"), responder, make](const scheduler::State& state) {
        const scheduler::Job* job = state.FindJob(JobId(id));
        if (job == nullptr) return SendProblem(responder, state.NoJob(JobId(id)));
        SendJson(responder, 200, make(state, *job, page));
      });
}

}  // namespace

void ListJobs(Api& api, http::Request request, http::ResponderPtr responder) {
  const auto filter = ParseFilter(request);
  if (!filter.ok()) return SendProblem(responder, filter.status());
  api.parts().loop.Read([&api, filter = *filter, responder](const scheduler::State& state) {
    const auto page = std::make_shared<json>(JobPage(state, filter));
    api.parts().pool.Submit([&api, responder, page] {
      for (json& job : (*page)["items"]) FillResult(api.parts().objects, job);
      SendJson(responder, 200, *page);
    });
  });
}

void GetJob(Api& api, http::Request request, http::ResponderPtr responder) {
  constexpr Duration kMaxWait = std::chrono::minutes(5);
  auto wait = std::make_shared<Wait>();
  wait->id = JobId(Param(request, "id"));
  wait->responder = responder;
  const auto limit = QueryDuration(request, "wait", Duration(0), kMaxWait);
  if (!limit.ok()) return SendProblem(responder, limit.status());
  const auto until = ParseState("until", QueryText(request, "until"));
  if (!until.ok()) return SendProblem(responder, until.status());
  wait->until = *until;
  StartWait(api, wait, *limit);
}

void CancelJob(Api& api, http::Request request, http::ResponderPtr responder) {
  const JobId id(Param(request, "id"));
  const std::string who = request.principal.empty() ? "a caller" : "key " + request.principal;
  api.parts().loop.Post(
      scheduler::CancelJob{id, "asked by " + who},
      [&api, id, responder](const scheduler::Reply& reply, const scheduler::State& state) {
        if (!reply.status.ok()) return SendProblem(responder, reply.status);
        const scheduler::Job* job = state.FindJob(id);
        if (job == nullptr) return SendProblem(responder, state.NoJob(id));
        SendJob(api, responder, state, *job);
      });
}

void ListTrials(Api& api, http::Request request, http::ResponderPtr responder) {
  SendPage(api, request, std::move(responder),
           [](const scheduler::State& state, const scheduler::Job& job, const PageRequest& page) {
             std::map<int, std::string> task_of;  // trial -> its living task
             for (const auto* task : state.TasksOf(JobId(job.id()))) {
               const scheduler::Gang* gang = state.GangOfTask(task->id());
               if (gang != nullptr && task->rank() == 0) task_of[gang->trial()] = task->id();
             }
             return MakePage(
                 job.trials(), page, [](const auto& trial) { return trial.index(); },
                 [&](const auto& trial) {
                   json view = TrialView(trial);
                   if (const auto task = task_of.find(trial.index()); task != task_of.end()) {
                     view["task_id"] = task->second;
                   }
                   view["best"] = trial.index() == job.best_trial() && trial.has_value();
                   return view;
                 });
           });
}

void ListCheckpoints(Api& api, http::Request request, http::ResponderPtr responder) {
  SendPage(api, request, std::move(responder),
           [](const scheduler::State&, const scheduler::Job& job, const PageRequest& page) {
             return MakePage(
                 job.checkpoints(), page, [](const auto& checkpoint) { return checkpoint.step(); },
                 [](const auto& checkpoint) { return CheckpointView(checkpoint); });
           });
}

}  // namespace lepton::api
