// POST /v1/jobs: parse (HTTP thread), find what is named (state loop), import and check (pool),
// then submit (state loop). A refused spec leaves nothing in the journal.
#include <fmt/format.h>

#include "runtime/base/utf8.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/job_inputs.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "scheduler/core/queue.h"

namespace lepton::api {
namespace {

using nlohmann::json;

struct Submission {
  spec::JobSpec spec;
  JobId id;
  std::string idempotency_key;
  bool dry_run = false;
  http::ResponderPtr responder;
  References references;
  scheduler::ObjectKeeper::Hold hold;  // what is imported stays until the job refers to it
};
using SubmissionPtr = std::shared_ptr<Submission>;

Result<SubmissionPtr> ParseSubmission(const http::Request& request) {
  auto submission = std::make_shared<Submission>();
  LEPTON_ASSIGN_OR_RETURN(submission->spec, spec::ParseJobSpec(request.body));
  LEPTON_RETURN_IF_ERROR(spec::CheckSubmission(submission->spec));
  LEPTON_ASSIGN_OR_RETURN(submission->dry_run, QueryFlag(request, "dry_run"));
  const std::string id = QueryText(request, "id");
  if (!id.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckName("id", id));
    if (id.find('.') != std::string::npos) {
      return InvalidArgument("id: must not have a dot: task ids are made from it");
    }
    submission->id = JobId(id);
  }
  submission->idempotency_key = request.Header("Idempotency-Key");
  if (submission->idempotency_key.size() > 255) {
    return InvalidArgument("Idempotency-Key: longer than 255 characters");
  }
  if (InvalidUtf8At(submission->idempotency_key)) {
    return InvalidArgument("Idempotency-Key: must be UTF-8");
  }
  return submission;
}

void SendJob(Api& api, const Submission& submission, const scheduler::Reply& reply,
             const scheduler::State& state) {
  if (!reply.status.ok()) return SendProblem(submission.responder, reply.status);
  const JobId id(reply.id);
  const scheduler::Job* job = state.FindJob(id);
  if (job == nullptr) return SendProblem(submission.responder, Internal("the job is not there"));
  const auto view = std::make_shared<json>(
      JobView(state, *job, {{id, scheduler::WaitingReason(state, id)}}, true));
  if (job->state() != scheduler::JOB_QUEUED) *view = JobView(state, *job, {}, true);
  const int status = reply.existed ? 200 : 201;
  api.parts().pool.Submit([&api, view, status, id, responder = submission.responder] {
    FillResult(api.parts().objects, *view);
    http::Response response = http::Response::Json(status, Dump(*view));
    response.headers.emplace("Location", "/v1/jobs/" + id.str());
    responder->Send(std::move(response));
  });
}

void Submit(Api& api, const SubmissionPtr& submission, scheduler::JobInputs inputs) {
  api.parts().loop.Post(
      scheduler::SubmitJob{submission->id, submission->idempotency_key, submission->spec,
                           std::move(inputs)},
      [&api, submission](const scheduler::Reply& reply, const scheduler::State& state) {
        SendJob(api, *submission, reply, state);
      });
}

// Of what would be submitted, or why it would not.
void Plan(Api& api, const SubmissionPtr& submission, json plan) {
  api.parts().loop.Read([submission, plan = std::move(plan)](const scheduler::State& state) {
    const Status status = scheduler::CheckSubmit(
        state, {submission->id, submission->idempotency_key, submission->spec, {}});
    if (!status.ok()) return SendProblem(submission->responder, status);
    SendJson(submission->responder, 200,
             {{"spec", spec::JobSpecToJson(submission->spec)}, {"plan", plan}});
  });
}

// On a pool thread.
void Resolve(Api& api, const SubmissionPtr& submission) {
  submission->hold = api.parts().loop.keeper().HoldAll();
  const auto line = api.imports().Begin("job " + submission->spec.name, api.parts().clock.WallMs());
  const InputLimits limits{
      api.options().file_roots, api.options().max_import_bytes,
      [&line](const storage::ImportProgress& progress) { return line->Update(progress); }};
  auto resolved = ResolveInputs(api.parts().objects, limits, api.parts().model_tools,
                                submission->spec, submission->references);
  if (!resolved.ok()) return SendProblem(submission->responder, resolved.status());
  // What no job or dataset refers to in the end (the CSV itself, a dry run's table) goes later.
  api.parts().loop.keeper().Forget(resolved->imported);
  if (submission->dry_run) return Plan(api, submission, std::move(resolved->plan));
  Submit(api, submission, std::move(resolved->inputs));
}

// A repeat must not import again, and must succeed even if the file has gone meanwhile.
bool IsRepeat(const scheduler::State& state, const Submission& submission) {
  if (submission.dry_run) return false;
  if (!submission.idempotency_key.empty() &&
      state.job_of_key.contains(submission.idempotency_key)) {
    return true;
  }
  return !submission.id.empty() && state.FindJob(submission.id) != nullptr;
}

// The job may be forgotten before its turn comes.
void Repeat(Api& api, const SubmissionPtr& submission) {
  api.parts().loop.Post(
      scheduler::SubmitJob{submission->id, submission->idempotency_key, submission->spec, {}},
      [&api, submission](const scheduler::Reply& reply, const scheduler::State& state) {
        SendJob(api, *submission, reply, state);
      },
      [submission](const scheduler::State& state) {
        return IsRepeat(state, *submission)
                   ? Status::Ok()
                   : Unavailable("the job that this repeats was forgotten just now: send it again");
      });
}

}  // namespace

void SubmitJob(Api& api, http::Request request, http::ResponderPtr responder) {
  auto parsed = ParseSubmission(request);
  if (!parsed.ok()) return SendProblem(responder, parsed.status());
  const SubmissionPtr submission = *parsed;
  submission->responder = std::move(responder);
  api.parts().loop.Read([&api, submission](const scheduler::State& state) {
    if (IsRepeat(state, *submission)) return Repeat(api, submission);
    auto references = FindReferences(state, submission->spec);
    if (!references.ok()) return SendProblem(submission->responder, references.status());
    submission->references = *std::move(references);
    WorkQueue& queue =
        Imports(submission->spec, submission->references) ? api.parts().imports : api.parts().pool;
    queue.Submit([&api, submission] { Resolve(api, submission); });
  });
}

}  // namespace lepton::api
