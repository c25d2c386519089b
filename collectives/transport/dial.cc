#include "collectives/transport/dial.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "collectives/transport/socket.h"

namespace lepton::collectives {
namespace {

constexpr Duration kBusyPause = std::chrono::milliseconds(50);

}  // namespace

Dial::Dial(Target target, const GroupKey* key, Connection connection, Duration patience,
           int attempts)
    : target_(std::move(target)),
      key_(key),
      connection_(connection),
      patience_(patience),
      attempt_(patience / std::max(1, attempts)),
      give_up_(RealClock().Now() + patience) {
  TryAgain();
}

Dial::Dial(Target target, const GroupKey& key, Connection connection, Duration patience,
           int attempts)
    : Dial(std::move(target), &key, connection, patience, attempts) {}

Dial Dial::Probe(Target target, Duration patience, int attempts) {
  return Dial(std::move(target), nullptr, {}, patience, attempts);
}

// A first packet that is lost is sent again after a second: too late, so a new attempt does it.
void Dial::TryAgain() {
  next_attempt_ = RealClock().Now() + attempt_;
  Result<UniqueFd> socket = StartConnecting(target_.host, target_.port);
  if (socket.ok()) {
    socket_ = *std::move(socket);
  } else if (socket.status().code() == StatusCode::kResourceExhausted) {
    Fail(socket.status());  // of this process or host, which says nothing of the peer
  } else {
    socket_.Reset();
    const std::string& message = socket.status().message();  // "connecting to ...: why"
    last_error_ = message.substr(message.rfind(": ") + 2);
  }
}

Dial::State Dial::Advance() {
  if (state_ == State::kConnecting && socket_.valid()) {
    pollfd writable{socket_.get(), POLLOUT, 0};
    if (poll(&writable, 1, 0) > 0) {
      const int error = ConnectionError(socket_.get());
      error == 0 ? OnConnected() : OnError(error);
    }
  }
  if (state_ == State::kTalking) {
    const Result<bool> done = handshake_->Advance(socket_.get());
    if (!done.ok() && handshake_->busy()) {
      OnBusy(done.status());
    } else if (!done.ok()) {
      Fail(done.status());
    } else if (*done) {
      state_ = State::kDone;
    }
  }
  if (state_ != State::kConnecting) return state_;
  const MonotonicTime now = RealClock().Now();
  if (now >= give_up_) {
    unreachable_ = true;
    Fail(DeadlineExceeded("no connection to " + target_.host + ":" + std::to_string(target_.port) +
                          " in time" + (last_error_.empty() ? "" : ": " + last_error_)));
  } else if (now >= next_attempt_) {
    TryAgain();
  }
  return state_;
}

void Dial::OnConnected() {
  if (probe()) {
    state_ = State::kDone;
    return;
  }
  state_ = State::kTalking;
  handshake_.emplace(*key_, target_.peer, connection_);
  const Status begun = handshake_->Begin(socket_.get());
  if (!begun.ok()) Fail(begun);
}

// Whoever refuses can be reached.
void Dial::OnError(int error) {
  if (error == ECONNREFUSED || error == ECONNRESET) {
    return Fail(Unavailable("connecting to " + target_.host + ":" + std::to_string(target_.port) +
                            ": " + std::strerror(error)));
  }
  last_error_ = std::strerror(error);
  socket_.Reset();
}

// As long as the meeting lasts: it can be reached, and has not judged this rank.
void Dial::OnBusy(const Status& refused) {
  state_ = State::kConnecting;
  socket_.Reset();
  last_error_ = refused.message();
  next_attempt_ = RealClock().Now() + kBusyPause;
  give_up_ = next_attempt_ + patience_;
}

void Dial::Fail(Status status) {
  state_ = State::kFailed;
  status_ = std::move(status);
  socket_.Reset();
}

pollfd Dial::Poll() const {
  const bool connecting = state_ == State::kConnecting;
  return {socket_.get(), static_cast<short>(connecting ? POLLOUT : POLLIN), 0};
}

}  // namespace lepton::collectives
