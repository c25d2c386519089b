#include "runtime/http/session.h"

#include <glog/logging.h>

#include <boost/beast/http/error.hpp>

namespace lepton::http {
namespace {

namespace beast_http = boost::beast::http;

constexpr size_t kReadAhead = size_t{64} << 10;    // pipelined bytes kept while a handler works
constexpr size_t kLingerBytes = size_t{16} << 20;  // dropped from a client that was refused

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
  // The body's limit depends on the head: CheckBodySize.
  parser_->body_limit(boost::none);
  head_started_ = head_done_ = false;
  is_head_ = http10_ = chunked_ = end_seen_ = false;
  request_ = Request();
  file_.reset();
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
    if (file_ != nullptr && !SpoolBody()) return;
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
  for (const auto& field : head.base()) {
    request_.headers.emplace(std::string(field.name_string()), std::string(field.value()));
  }
  request_.peer = peer_;
  const auto length = parser_->content_length();
  has_body_ = parser_->chunked() || (length && *length > 0);
  if (!CheckAllowed() || !CheckBodySize()) return false;
  const auto expect = head[beast_http::field::expect];
  if (expect.empty() || http10_) return true;
  if (!boost::beast::iequals(expect, "100-continue")) {
    return refuse(417, "the only expectation known is 100-continue");
  }
  if (!parser_->is_done()) Enqueue("HTTP/1.1 100 Continue\r\n\r\n");
  return true;
}

// False when the request was refused.
bool Session::CheckAllowed() {
  if (!has_body_ || !core_->options.refuse) return true;
  auto refusal = core_->options.refuse(request_);
  if (!refusal) return true;
  Refuse(*std::move(refusal));
  Read();
  return false;
}

// In memory or in a file, and how large. False when the request was refused.
bool Session::CheckBodySize() {
  body_limit_ = core_->options.max_body_bytes;
  // Their bodies mean nothing (RFC 9110, 9.3.1), and are those of calls that are open to all.
  if (request_.method == "GET" || is_head_) {
    body_limit_ = std::min<uint64_t>(body_limit_, core_->options.max_header_bytes);
  }
  if (has_body_ && core_->options.to_file) {
    if (const auto to_file = core_->options.to_file(request_)) {
      body_limit_ = to_file->max_bytes;
      auto file = BodyFile::Make(to_file->folder);
      if (!file.ok()) {
        Refuse(507, StatusCodeName(file.status().code()), file.status().message());
        Read();
        return false;
      }
      file_ = std::move(*file);
    }
  }
  if (parser_->content_length().value_or(0) > body_limit_) {
    RefuseParse(beast_http::error::body_limit);
    return false;
  }
  parser_->body_limit(body_limit_);
  return true;
}

// What has arrived goes to the file; the client has another read_timeout for more. A write goes to
// the page cache: it is the reading from the socket that keeps this thread.
bool Session::SpoolBody() {
  std::string& body = parser_->get().body();
  if (body.empty()) return true;
  const Status written = file_->Append(body);
  body.clear();
  if (written.ok()) {
    ArmRead(core_->options.read_timeout);
    return true;
  }
  Refuse(507, StatusCodeName(written.code()), written.message());
  Read();
  return false;
}

void Session::RefuseParse(ErrorCode error) {
  using Error = beast_http::error;
  if (error == Error::body_limit) {
    Refuse(413, "RESOURCE_EXHAUSTED",
           "body: larger than " + std::to_string(body_limit_) + " bytes");
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
  request_.body = std::move(parser_->get().body());
  request_.file = std::move(file_);
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

}  // namespace lepton::http
