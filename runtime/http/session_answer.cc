// The Responder and the Stream that a session gives to its handlers.
#include "runtime/http/session.h"

namespace lepton::http {
namespace {

constexpr size_t kMaxPendingBytes = size_t{1} << 20;

}  // namespace

SessionStream::~SessionStream() {
  Close();
}

bool SessionStream::Write(std::string_view bytes) {
  if (!open_) return false;
  if (bytes.empty()) return true;
  const size_t pending = pending_.fetch_add(bytes.size()) + bytes.size();
  // One write larger than the bound is fine on an empty stream.
  if (pending > kMaxPendingBytes && pending != bytes.size()) {
    open_ = false;
    session_->PostClose();
    return false;
  }
  session_->PostStreamBytes(exchange_, std::string(bytes));
  return true;
}

void SessionStream::Close() {
  if (open_.exchange(false)) session_->PostStreamEnd(exchange_);
}

SessionResponder::~SessionResponder() {
  if (TakeAnswer()) {
    session_->PostResponse(exchange_, HttpProblem(500, "INTERNAL", "the handler gave no answer"));
  }
}

bool SessionResponder::TakeAnswer() {
  std::function<void()> drop;  // destroyed after the lock is released
  std::lock_guard lock(mutex_);
  drop.swap(on_cancel_);
  return !std::exchange(answered_, true);
}

void SessionResponder::Send(Response response) {
  if (TakeAnswer()) session_->PostResponse(exchange_, std::move(response));
}

std::shared_ptr<Stream> SessionResponder::StartStream(int status, Headers headers) {
  auto stream = std::make_shared<SessionStream>(session_, exchange_);
  if (TakeAnswer() && !cancelled_) {
    session_->PostStreamHead(exchange_, status, std::move(headers), stream);
  } else {
    stream->open_ = false;
  }
  return stream;
}

void SessionResponder::OnCancel(std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    if (answered_) return;
    if (!cancelled_) {
      on_cancel_ = std::move(callback);
      return;
    }
  }
  callback();
}

void SessionResponder::Disconnected() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_.exchange(true) || answered_) return;
    callback.swap(on_cancel_);
  }
  if (callback) callback();
}

}  // namespace lepton::http
