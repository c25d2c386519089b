// The answering half of a session: heads, the queue of bytes to write, the end of an exchange.
#include <glog/logging.h>

#include <ctime>

#include "runtime/http/reason.h"
#include "runtime/http/session.h"

namespace lepton::http {
namespace {

constexpr size_t kWriteSlice = size_t{256} << 10;  // must leave within write_timeout
constexpr Duration kLingerTime = std::chrono::seconds(2);

std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts)};
}

bool IsToken(std::string_view name) {
  return !name.empty() && name.find_first_of(std::string_view(" \t\r\n:\0", 6)) == name.npos;
}

// Set by the session itself.
bool IsFramingHeader(const std::string& name) {
  static const std::map<std::string, bool, CaseLess> kNames = {
      {"Content-Length", true}, {"Transfer-Encoding", true}, {"Connection", true}, {"Date", true}};
  return kNames.contains(name);
}

}  // namespace

void Session::Refuse(int status, std::string_view code, std::string_view detail) {
  Refuse(HttpProblem(status, code, detail));
}

void Session::Refuse(Response response) {
  keep_alive_ = false;
  read_timer_.cancel();
  state_ = State::kWriting;
  Respond(std::move(response));
}

std::string Session::Head(int status, const Headers& headers,
                          std::optional<uint64_t> content_length, bool chunked) const {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += ReasonPhrase(status);
  head += "\r\nDate: " + HttpDate() + "\r\n";
  for (const auto& [name, value] : headers) {
    if (IsFramingHeader(name)) continue;
    if (!IsToken(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != value.npos) {
      LOG(ERROR) << "http: dropped a response header that would break the framing";
      continue;
    }
    head += name + ": " + value + "\r\n";
  }
  if (chunked) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (content_length) {
    head += "Content-Length: " + std::to_string(*content_length) + "\r\n";
  }
  if (!keep_alive_) {
    head += "Connection: close\r\n";
  } else if (http10_) {
    head += "Connection: keep-alive\r\n";
  }
  return head + "\r\n";
}

void Session::Respond(Response response) {
  const bool no_body = response.status < 200 || response.status == 204 || response.status == 304;
  const uint64_t size = response.source ? response.source->size() : response.body.size();
  std::string head =
      Head(response.status, response.headers, no_body ? std::nullopt : std::optional(size), false);
  if (is_head_ || no_body) {
    response.body.clear();
    response.source.reset();
  }
  if (response.source) {
    out_.push_back({std::move(head), 0, 0, std::move(response.source), size});
    return WriteNext();
  }
  if (response.body.size() <= kWriteSlice / 4) {
    Enqueue(std::move(head) + response.body);
  } else {
    Enqueue(std::move(head));
    Enqueue(std::move(response.body));
  }
}

void Session::Enqueue(std::string bytes, size_t accounted) {
  out_.push_back({std::move(bytes), 0, accounted, nullptr, 0});
  WriteNext();
}

// The next bytes of the output's source. False where they cannot be had: then it is over.
bool Session::Refill(Output& output) {
  Result<std::string> bytes = output.source->Next(std::min<uint64_t>(kWriteSlice, output.left));
  if (!bytes.ok() || bytes->empty() || bytes->size() > output.left) {
    LOG(ERROR) << "http: an answer to " << peer_ << " broke off, " << output.left
               << " bytes short: " << bytes.status().ToString();
    return false;
  }
  output.left -= bytes->size();
  output.bytes = *std::move(bytes);
  output.written = 0;
  return true;
}

void Session::WriteNext() {
  if (writing_ || out_.empty() || state_ == State::kClosed) return;
  writing_ = true;
  const Output& front = out_.front();
  const size_t size = std::min(kWriteSlice, front.bytes.size() - front.written);
  ArmWrite();
  transport_->WriteAll(asio::buffer(front.bytes.data() + front.written, size),
                       [self = shared_from_this()](ErrorCode error, size_t bytes) {
                         self->OnWritten(error, bytes);
                       });
}

void Session::OnWritten(ErrorCode error, size_t bytes) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (error) return Close();
  Output& front = out_.front();
  front.written += bytes;
  if (front.written == front.bytes.size() && front.left > 0) {
    if (!Refill(front)) return Close();
  } else if (front.written == front.bytes.size()) {
    if (front.accounted > 0) {
      if (const auto stream = stream_.lock()) stream->pending_ -= front.accounted;
    }
    out_.pop_front();
  }
  if (!out_.empty()) return WriteNext();
  write_timer_.cancel();
  if (state_ == State::kWriting || (state_ == State::kStreaming && end_seen_)) EndExchange();
}

void Session::EndExchange() {
  stream_.reset();
  if (!keep_alive_ || eof_ || core_->stopping) return Linger();
  BeginRequest();
  Advance();
}

void Session::Linger() {
  if (eof_) return Close();
  state_ = State::kLingering;
  in_.consume(in_.size());
  transport_->ShutdownSend();
  ArmRead(kLingerTime);
  Read();
}

void Session::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  NotifyDisconnect();
  read_timer_.cancel();
  write_timer_.cancel();
  transport_->Close();
  std::lock_guard lock(core_->sessions_mutex);
  core_->sessions.erase(this);
  core_->sessions_changed.notify_all();
}

// ---- calls from other threads -------------------------------------------------------------

template <typename Work>
void Session::Post(Work&& work) {
  core_->Post(transport_->socket().get_executor(),
              [self = shared_from_this(), work = std::forward<Work>(work)]() mutable {
                if (self->state_ != State::kClosed) work(*self);
              });
}

void Session::PostResponse(uint64_t exchange, Response response) {
  Post([exchange, response = std::move(response)](Session& session) mutable {
    if (session.exchange_ != exchange || session.state_ != State::kHandling) return;
    if (session.core_->stopping || session.eof_) session.keep_alive_ = false;
    session.state_ = State::kWriting;
    session.Respond(std::move(response));
  });
}

void Session::PostStreamHead(uint64_t exchange, int status, Headers headers,
                             std::shared_ptr<SessionStream> stream) {
  const auto start = [self = shared_from_this(), exchange, status, headers = std::move(headers),
                      weak = std::weak_ptr(stream)] {
    Session& session = *self;
    const bool waits = session.exchange_ == exchange && session.state_ == State::kHandling;
    if (!waits || session.eof_) {
      // The client left meanwhile: whoever writes must learn it.
      if (const auto stream = weak.lock()) stream->open_ = false;
      if (waits) session.Close();
      return;
    }
    session.state_ = State::kStreaming;
    session.stream_ = weak;
    // Without chunks the end of an HTTP/1.0 answer is the end of the connection.
    if (session.core_->stopping || session.http10_) session.keep_alive_ = false;
    session.chunked_ = !session.http10_;
    session.Enqueue(session.Head(status, headers, std::nullopt, session.chunked_));
  };
  core_->Post(transport_->socket().get_executor(), start);
}

void Session::PostStreamBytes(uint64_t exchange, std::string bytes) {
  Post([exchange, bytes = std::move(bytes)](Session& session) mutable {
    if (session.exchange_ != exchange || session.state_ != State::kStreaming) return;
    const size_t accounted = bytes.size();
    if (session.is_head_) {
      if (const auto stream = session.stream_.lock()) stream->pending_ -= accounted;
      return;
    }
    if (session.chunked_) {
      char size[24];
      std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
      bytes = size + bytes + "\r\n";
    }
    session.Enqueue(std::move(bytes), accounted);
  });
}

void Session::PostStreamEnd(uint64_t exchange) {
  Post([exchange](Session& session) {
    if (session.exchange_ != exchange || session.state_ != State::kStreaming) return;
    if (session.end_seen_) return;
    session.end_seen_ = true;
    if (session.chunked_ && !session.is_head_) return session.Enqueue("0\r\n\r\n");
    if (session.out_.empty()) session.EndExchange();
  });
}

void Session::PostClose() {
  Post([](Session& session) { session.Close(); });
}

void Session::PostDrain() {
  Post([](Session& session) {
    const bool idle = session.state_ == State::kHead && !session.head_started_;
    if (idle || session.state_ == State::kHandshake) session.Close();
  });
}

}  // namespace lepton::http
