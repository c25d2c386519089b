// Health, metrics, the API's description and the page.
#include "runtime/base/metrics.h"
#include "scheduler/api/handlers.h"
#include "scheduler/api/openapi.h"
#include "scheduler/api/respond.h"
#include "scheduler/core/job_state.h"
#include "scheduler/web/page.h"

namespace lepton::api {
namespace {

using nlohmann::json;

void SetGauges(const scheduler::State& state) {
  std::map<std::string, double> jobs, workers;
  for (const auto job_state :
       {scheduler::JOB_QUEUED, scheduler::JOB_STARTING, scheduler::JOB_RUNNING,
        scheduler::JOB_RECOVERING, scheduler::JOB_STOPPING, scheduler::JOB_SUCCEEDED,
        scheduler::JOB_FAILED, scheduler::JOB_CANCELLED}) {
    jobs[std::string(scheduler::JobStateName(job_state))] = 0;
  }
  for (const auto worker_state :
       {scheduler::WORKER_UP, scheduler::WORKER_LOST, scheduler::WORKER_DRAINING}) {
    workers[std::string(scheduler::WorkerStateName(worker_state))] = 0;
  }
  for (const auto& [id, job] : state.jobs) {
    ++jobs[std::string(scheduler::JobStateName(job.state()))];
  }
  double used = 0, total = 0;
  for (const auto& [id, worker] : state.workers) {
    ++workers[std::string(scheduler::WorkerStateName(worker.state()))];
    if (worker.state() == scheduler::WORKER_LOST) continue;
    total += worker.hello().slots();
    const auto found = state.used_slots.find(id);
    if (found != state.used_slots.end()) used += found->second;
  }
  for (const auto& [name, count] : jobs) {
    metrics::Gauge("lepton_jobs", "Jobs by state.", {{"state", name}}).Set(count);
  }
  for (const auto& [name, count] : workers) {
    metrics::Gauge("lepton_workers", "Workers by state.", {{"state", name}}).Set(count);
  }
  metrics::Gauge("lepton_slots_used", "Slots that tasks hold.").Set(used);
  metrics::Gauge("lepton_slots", "Slots of connected workers.").Set(total);
}

// Of batch predictions: rows and pace of those that are not at their end, shards of all.
void SetShardGauges(const scheduler::State& state) {
  double done_rows = 0, left_rows = 0, rate = 0;
  std::map<std::string, double> shards = {
      {"done", 0}, {"taken_over", 0}, {"doubled", 0}, {"done_twice", 0}, {"differing", 0}};
  for (const auto& [id, job] : state.jobs) {
    const scheduler::Shards& one = job.shards();
    if (one.rows() == 0) continue;
    shards["done"] += one.done();
    shards["taken_over"] += one.taken_over();
    shards["doubled"] += one.doubled();
    shards["done_twice"] += one.done_twice();
    shards["differing"] += one.differing();
    if (scheduler::IsTerminal(job.state())) continue;
    done_rows += static_cast<double>(one.rows_done());
    left_rows += static_cast<double>(one.rows() - one.rows_done());
    rate += job.progress().samples_per_second();
  }
  for (const auto& [outcome, count] : shards) {
    metrics::Gauge("lepton_batch_shards", "Shards of batch predictions, by what became of them.",
                   {{"outcome", outcome}})
        .Set(count);
  }
  const char* const help = "Rows of batch predictions that are under way.";
  metrics::Gauge("lepton_batch_rows", help, {{"state", "done"}}).Set(done_rows);
  metrics::Gauge("lepton_batch_rows", help, {{"state", "left"}}).Set(left_rows);
  metrics::Gauge("lepton_batch_rows_per_second", "Their pace together.").Set(rate);
}

}  // namespace

void GetHealth(Api&, http::Request, http::ResponderPtr responder) {
  SendJson(responder, 200, {{"status", "ok"}});
}

// Ready once the state loop answers.
void GetReady(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([&api, responder](const scheduler::State&) {
    const Status refuses = api.parts().loop.JournalRefuses();
    if (!refuses.ok()) return SendProblem(responder, Unavailable(refuses.message()));
    SendJson(responder, 200, {{"status", "ready"}});
  });
}

void GetInferenceHealth(Api& api, http::Request request, http::ResponderPtr responder) {
  const bool live = request.path.ends_with("/live");
  api.parts().loop.Read([responder, live](const scheduler::State&) {
    SendJson(responder, 200, {{live ? "live" : "ready", true}});
  });
}

void GetProcessMetrics(Api& api, http::Request, http::ResponderPtr responder) {
  api.parts().loop.Read([&api, responder](const scheduler::State& state) {
    SetGauges(state);
    SetShardGauges(state);
    metrics::Gauge("lepton_job_watchers", "Long polls and followed feeds that wait for a job.")
        .Set(static_cast<double>(api.parts().watch.size()));
    api.parts().pool.Submit([responder] {
      responder->Send(
          http::Response::Text(200, metrics::Expose(), "text/plain; version=0.0.4; charset=utf-8"));
    });
  });
}

void GetOpenApi(Api& api, http::Request, http::ResponderPtr responder) {
  SendJson(responder, 200, api.openapi());
}

void GetPage(Api&, http::Request, http::ResponderPtr responder) {
  http::Response response =
      http::Response::Text(200, std::string(web::IndexPage()), "text/html; charset=utf-8");
  response.headers.emplace("Content-Security-Policy",
                           "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
                           "style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'");
  response.headers.emplace("X-Content-Type-Options", "nosniff");
  response.headers.emplace("Referrer-Policy", "no-referrer");
  responder->Send(std::move(response));
}

}  // namespace lepton::api
