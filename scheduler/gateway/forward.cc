#include <algorithm>
#include <utility>

#include "runtime/base/metrics.h"
#include "scheduler/gateway/gateway_impl.h"

namespace lepton::gateway {

using http::Request;
using http::Response;

void GatewayImpl::Dispatch(const PendingPtr& pending) {
  std::unique_lock lock(mutex_);
  if (pending->cancelled || stopping_) {
    lock.unlock();
    return Fail(pending, Unavailable("the gateway is stopping"));
  }
  const ReplicaPtr replica = pending->deployment->Pick();
  if (replica == nullptr) {
    if (!pending->wait_until) {
      pending->wait_until =
          std::min(RealClock().Now() + options_.wait_for_replica, pending->deadline);
    }
    waiting_.push_back(pending);
    wake_.notify_all();
    return;
  }
  ++replica->in_flight;
  ++dispatching_;
  Request request = pending->request;
  request.headers.emplace("Authorization", "Bearer " + replica->replica.token);
  const std::string host = replica->replica.host;
  const uint16_t port = replica->replica.port;
  lock.unlock();
  const Duration left = std::max(pending->deadline - RealClock().Now(), Duration(1));
  auto cancel = client_->Call(host, port, std::move(request), left,
                              [this, pending, replica](Result<Response> result) {
                                OnAnswer(pending, replica, std::move(result));
                              });
  lock.lock();
  --dispatching_;
  if (stopping_) wake_.notify_all();
  if (pending->finished) return;
  if (!pending->cancelled) {
    pending->cancel_call = std::move(cancel);
    return;
  }
  lock.unlock();
  cancel();
}

void GatewayImpl::OnAnswer(const PendingPtr& pending, const ReplicaPtr& replica,
                           Result<Response> result) {
  const StatusCode code = result.status().code();
  // 401: another process has the port now. 503: not ready, or draining.
  const bool refused = result.ok() && (result->status == 401 || result->status == 503);
  {
    std::lock_guard lock(mutex_);
    --replica->in_flight;
    pending->cancel_call = nullptr;
    if (refused || code == StatusCode::kUnavailable || code == StatusCode::kAborted ||
        code == StatusCode::kDeadlineExceeded) {
      Eject(*replica,
            refused ? "answered " + std::to_string(result->status) : result.status().ToString());
    }
    pending->broken += code == StatusCode::kAborted ? 1 : 0;
  }
  if (pending->deadline <= RealClock().Now() || code == StatusCode::kDeadlineExceeded) {
    return Fail(pending, DeadlineExceeded("no replica answered in time"));
  }
  if (refused || code == StatusCode::kUnavailable ||
      // Only once, lest a request that kills its replica kills them all.
      (code == StatusCode::kAborted && pending->broken < 2)) {
    {
      std::lock_guard lock(mutex_);
      ++pending->deployment->retries;
    }
    metrics::Counter("lepton_gateway_retries_total", "Requests sent to another replica",
                     {{"deployment", pending->deployment->name}})
        .Increment();
    return Dispatch(pending);
  }
  if (code == StatusCode::kCancelled) {
    return Fail(pending, Unavailable("the gateway is stopping"));
  }
  if (code == StatusCode::kResourceExhausted)
    return Fail(pending, Unavailable(result.status().message()));
  if (!result.ok()) return Fail(pending, Unavailable("two replicas broke while answering"));
  Response response;
  response.status = result->status;
  response.headers = PassedOn(result->headers);
  response.body = std::move(result->body);
  Answer(pending, std::move(response));
}

void GatewayImpl::Fail(const PendingPtr& pending, const Status& status) {
  Answer(pending, ErrorResponse(pending->v2, status));
}

void GatewayImpl::Answer(const PendingPtr& pending, Response response) {
  const double seconds = std::chrono::duration<double>(RealClock().Now() - pending->start).count();
  const bool error = response.status >= 500;
  std::string code = std::to_string(response.status);
  const std::string& name = pending->deployment->name;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(pending->finished, true)) return;
    DeploymentState& deployment = *pending->deployment;
    --deployment.in_flight;
    if (pending->cancelled) {
      code = "499";
    } else {
      deployment.errors += error ? 1 : 0;
      deployment.AddLatency(seconds);
    }
  }
  metrics::Counter("lepton_gateway_requests_total", "Inference requests by answer",
                   {{"deployment", name}, {"code", code}})
      .Increment();
  metrics::Histogram("lepton_gateway_request_seconds", "From a request's arrival to its answer",
                     {{"deployment", name}})
      .Observe(seconds);
  pending->responder->Send(std::move(response));
}

}  // namespace lepton::gateway
