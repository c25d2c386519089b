#include "runtime/http/session.h"

#include <glog/logging.h>

#include <boost/beast/http/error.hpp>
#include <ctime>

#include "runtime/http/reason.h"

namespace lepton::http {
namespace {

namespace beast_http = boost::beast::http;

constexpr size_t kReadAhead = size_t{64} << 10;    // pipelined bytes kept while a handler works
constexpr size_t kWriteSlice = size_t{256} << 10;  // must leave within write_timeout
constexpr size_t kLingerBytes = size_t{16} << 20;  // dropped from a client that was refused
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

Session::Session(std::shared_ptr<ServerCore> core, std::unique_ptr<Transport> transport,
                 std::string peer)
    : core_(std::move(core)),
      transport_(std::move(transport)),
      peer_(std::move(peer)),
      read_timer_(transport_->socket().get_executor()),
      write_timer_(transport_->socket().get_executor()) {}

void Session::Start(bool reject) {
  if (state_ == State::kClosed) return;
  if (reject) {
    Refuse(503, "UNAVAILABLE", "too many connections: try again later");
    return Read();
  }
  ArmRead(core_->options.read_timeout);
  transport_->Handshake([self = shared_from_this()](ErrorCode error, size_t) {
    if (self->state_ == State::kClosed) return;
    if (error) return self->Close();
    self->BeginRequest();
    self->Read();
  });
}

void Session::BeginRequest() {
  state_ = State::kHead;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(core_->options.max_header_bytes));
  parser_->body_limit(core_->options.max_body_bytes);
  head_started_ = head_done_ = false;
  is_head_ = http10_ = chunked_ = end_seen_ = false;
  request_ = Request();
  ArmRead(core_->options.idle_timeout);
}

// ---- reading ------------------------------------------------------------------------------

void Session::Read() {
  if (reading_ || eof_ || state_ == State::kClosed) return;
  reading_ = true;
  // Not straight into in_: it is consumed from while this read is outstanding.
  transport_->ReadSome(
      asio::buffer(chunk_),
      [self = shared_from_this()](ErrorCode error, size_t bytes) { self->OnRead(error, bytes); });
}

void Session::OnRead(ErrorCode error, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (error) return OnReadError(error);
  asio::buffer_copy(in_.prepare(bytes), asio::buffer(chunk_), bytes);
  in_.commit(bytes);
  switch (state_) {
    case State::kHead:
    case State::kBody:
      return Advance();
    case State::kHandling:
    case State::kStreaming:
      if (in_.size() < kReadAhead) Read();
      return;
    case State::kWriting:
      if (keep_alive_) {
        if (in_.size() < kReadAhead) Read();
        return;
      }
      [[fallthrough]];
    case State::kLingering:
      lingered_ += in_.size();
      in_.consume(in_.size());
      return lingered_ > kLingerBytes ? Close() : Read();
    case State::kHandshake:
    case State::kClosed:
      return;
  }
}

void Session::OnReadError(ErrorCode error) {
  eof_ = true;
  const bool reset = error != asio::error::eof;
  switch (state_) {
    case State::kHandling:
      // The client may have closed only its sending side: the answer is still tried.
      if (reset) return Close();
      return NotifyDisconnect();
    case State::kWriting:
      if (reset) Close();
      return;
    default:
      return Close();
  }
}

void Session::Advance() {
  while (state_ == State::kHead || state_ == State::kBody) {
    if (in_.size() == 0) return Read();
    if (!head_started_) {
      head_started_ = true;
      ArmRead(core_->options.read_timeout);
    }
    ErrorCode error;
    const size_t used = parser_->put(in_.data(), error);
    in_.consume(used);
    if (error && error != beast_http::error::need_more) return RefuseParse(error);
    if (!head_done_ && parser_->is_header_done()) {
      head_done_ = true;
      state_ = State::kBody;
      ArmRead(core_->options.read_timeout);
      if (!CheckHead()) return;
    }
    if (parser_->is_done()) return Dispatch();
    if (error || used == 0) return Read();
  }
}

// What Beast lets pass and we do not. False when the request was refused.
bool Session::CheckHead() {
  const auto& head = parser_->get();
  keep_alive_ = parser_->keep_alive();
  http10_ = head.version() == 10;
  is_head_ = head.method() == beast_http::verb::head;
  const auto refuse = [this](int status, const char* detail) {
    Refuse(status, "INVALID_ARGUMENT", detail);
    Read();
    return false;
  };
  if (head.version() != 10 && head.version() != 11) return refuse(505, "only HTTP/1.0 and 1.1");
  if (head.count(beast_http::field::host) != 1 && !http10_) {
    return refuse(400, "exactly one Host header is needed");
  }
  if (head.count(beast_http::field::transfer_encoding) != 0 && !parser_->chunked()) {
    return refuse(501, "the only transfer encoding known is chunked");
  }
  request_.method = std::string(head.method_string());
  request_.target = std::string(head.target());
  if (const Status parsed = ParseTarget(request_); !parsed.ok()) {
    Refuse(400, "INVALID_ARGUMENT", parsed.message());
    Read();
    return false;
  }
  const auto expect = head[beast_http::field::expect];
  if (expect.empty() || http10_) return true;
  if (!boost::beast::iequals(expect, "100-continue")) {
    return refuse(417, "the only expectation known is 100-continue");
  }
  if (!parser_->is_done()) Enqueue("HTTP/1.1 100 Continue\r\n\r\n");
  return true;
}

void Session::RefuseParse(ErrorCode error) {
  using Error = beast_http::error;
  if (error == Error::body_limit) {
    Refuse(413, "RESOURCE_EXHAUSTED",
           "body: larger than " + std::to_string(core_->options.max_body_bytes) + " bytes");
  } else if (error == Error::header_limit) {
    Refuse(431, "RESOURCE_EXHAUSTED",
           "headers: larger than " + std::to_string(core_->options.max_header_bytes) + " bytes");
  } else {
    Refuse(400, "INVALID_ARGUMENT", "malformed HTTP: " + error.message());
  }
  Read();
}

void Session::Dispatch() {
  state_ = State::kHandling;
  read_timer_.cancel();
  auto message = parser_->release();
  for (const auto& field : message.base()) {
    request_.headers.emplace(std::string(field.name_string()), std::string(field.value()));
  }
  request_.body = std::move(message.body());
  request_.peer = peer_;
  auto responder = std::make_shared<SessionResponder>(shared_from_this(), ++exchange_);
  responder_ = responder;
  Read();
  try {
    core_->handler(std::move(request_), responder);
  } catch (const std::exception& error) {
    LOG(ERROR) << "http handler threw: " << error.what();
    responder->Send(HttpProblem(500, "INTERNAL", "the handler failed"));
  }
}

void Session::NotifyDisconnect() {
  if (const auto responder = responder_.lock()) responder->Disconnected();
  if (const auto stream = stream_.lock()) stream->open_ = false;
}

// ---- answering ----------------------------------------------------------------------------

void Session::Refuse(int status, std::string_view code, std::string_view detail) {
  keep_alive_ = false;
  read_timer_.cancel();
  state_ = State::kWriting;
  Respond(HttpProblem(status, code, detail));
}

std::string Session::Head(int status, const Headers& headers, std::optional<size_t> content_length,
                          bool chunked) const {
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
  std::string head = Head(response.status, response.headers,
                          no_body ? std::nullopt : std::optional(response.body.size()), false);
  if (is_head_ || no_body) {
    response.body.clear();
  }
  if (response.body.size() <= kWriteSlice / 4) {
    Enqueue(std::move(head) + response.body);
  } else {
    Enqueue(std::move(head));
    Enqueue(std::move(response.body));
  }
}

void Session::Enqueue(std::string bytes, size_t accounted) {
  out_.push_back({std::move(bytes), 0, accounted});
  WriteNext();
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
  if (front.written == front.bytes.size()) {
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

// ---- time ---------------------------------------------------------------------------------

void Session::ArmRead(Duration timeout) {
  read_timer_.expires_after(timeout);
  read_timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    // A timer that was re-armed after it fired still calls back.
    if (error || self->read_timer_.expiry() > std::chrono::steady_clock::now()) return;
    self->OnReadTimeout();
  });
}

void Session::OnReadTimeout() {
  const bool in_request = (state_ == State::kHead && head_started_) || state_ == State::kBody;
  if (state_ == State::kHandling || state_ == State::kWriting || state_ == State::kStreaming)
    return;
  if (!in_request) return Close();
  Refuse(408, "DEADLINE_EXCEEDED", "the request did not arrive in time");
}

void Session::ArmWrite() {
  write_timer_.expires_after(core_->options.write_timeout);
  write_timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->write_timer_.expiry() > std::chrono::steady_clock::now()) return;
    if (self->writing_) self->Close();
  });
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
  Post([exchange, status, headers = std::move(headers),
        weak = std::weak_ptr(stream)](Session& session) {
    if (session.exchange_ != exchange || session.state_ != State::kHandling) return;
    if (session.eof_) return session.Close();
    session.state_ = State::kStreaming;
    session.stream_ = weak;
    // Without chunks the end of an HTTP/1.0 answer is the end of the connection.
    if (session.core_->stopping || session.http10_) session.keep_alive_ = false;
    session.chunked_ = !session.http10_;
    session.Enqueue(session.Head(status, headers, std::nullopt, session.chunked_));
  });
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
