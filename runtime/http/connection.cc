#include "runtime/http/connection.h"

#include <sys/socket.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/beast/http/error.hpp>

namespace lepton::http {
namespace {

namespace beast_http = boost::beast::http;
using asio::ip::tcp;

constexpr std::uint64_t kMaxResponseBytes = std::uint64_t{1} << 32;
constexpr std::uint32_t kMaxResponseHeadBytes = 64 << 10;
constexpr size_t kReadBytes = size_t{64} << 10;

}  // namespace

std::string HostHeader(const std::string& host, uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string SerializeRequest(const Request& request, std::string_view host_header) {
  std::string head = request.method + " " + request.target + " HTTP/1.1\r\nHost: ";
  head += host_header;
  head += "\r\n";
  static const std::multimap<std::string, int, CaseLess> kOwn = {
      {"Host", 0}, {"Content-Length", 0}, {"Transfer-Encoding", 0}, {"Connection", 0}};
  for (const auto& [name, value] : request.headers) {
    if (kOwn.contains(name)) continue;
    if (value.find_first_of("\r\n") != value.npos || name.find_first_of("\r\n: ") != name.npos) {
      continue;
    }
    head += name + ": " + value + "\r\n";
  }
  if (!request.body.empty() || request.method == "POST" || request.method == "PUT" ||
      request.method == "PATCH") {
    head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  }
  return head + "\r\n" + request.body;
}

ClientConnection::ClientConnection(asio::any_io_executor executor)
    : executor_(std::move(executor)), resolver_(executor_), socket_(executor_) {}

void ClientConnection::Connect(const std::string& host, uint16_t port, asio::ssl::context* tls,
                               bool verify, Connected done) {
  host_ = host;
  tls_ = tls;
  verify_ = verify;
  connected_ = std::move(done);
  ErrorCode no_address;
  const auto address = asio::ip::make_address(host, no_address);
  if (!no_address) {
    socket_.async_connect(tcp::endpoint(address, port),
                          [self = shared_from_this()](ErrorCode error) { self->OnSocket(error); });
    return;
  }
  resolver_.async_resolve(
      host, std::to_string(port),
      [self = shared_from_this()](ErrorCode error, tcp::resolver::results_type results) {
        self->OnResolved(error, std::move(results));
      });
}

void ClientConnection::OnResolved(ErrorCode error, tcp::resolver::results_type results) {
  if (error) return FinishConnect(Unavailable(host_ + ": " + error.message()));
  if (closed_) return FinishConnect(Unavailable("closed"));
  asio::async_connect(socket_, results,
                      [self = shared_from_this()](ErrorCode failed, const tcp::endpoint&) {
                        self->OnSocket(failed);
                      });
}

void ClientConnection::OnSocket(ErrorCode error) {
  // Of this process, and no fault of whom it connects to.
  if (error == asio::error::no_descriptors) {
    return FinishConnect(ResourceExhausted(host_ + ": cannot connect: " + error.message()));
  }
  if (error) return FinishConnect(Unavailable(host_ + ": cannot connect: " + error.message()));
  if (closed_) return FinishConnect(Unavailable("closed"));
  ErrorCode ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  transport_ = tls_ != nullptr ? MakeTlsTransport(std::move(socket_), *tls_, false, host_, verify_)
                               : MakePlainTransport(std::move(socket_));
  if (tls_ == nullptr) return FinishConnect({});
  transport_->Handshake([self = shared_from_this()](ErrorCode failed, size_t) {
    self->FinishConnect(failed ? Unavailable(self->host_ + ": TLS: " + failed.message())
                               : Status());
  });
}

void ClientConnection::FinishConnect(Status status) {
  reusable_ = status.ok() && !closed_;
  if (auto done = std::exchange(connected_, nullptr)) done(std::move(status));
}

void ClientConnection::Exchange(std::string request, bool is_head, OnBytes on_bytes, Done done) {
  out_ = std::move(request);
  is_head_ = is_head;
  on_bytes_ = std::move(on_bytes);
  done_ = std::move(done);
  any_bytes_ = false;
  if (!reusable_) return FinishExchange(Unavailable("the connection is closed"));
  reusable_ = false;
  ResetParser();
  writing_ = true;
  transport_->WriteAll(asio::buffer(out_), [self = shared_from_this()](ErrorCode error, size_t) {
    self->writing_ = false;
    // A failed write is left to the reader: the server may have answered early, then closed.
    if (error == asio::error::operation_aborted) self->FinishExchange(Unavailable("closed"));
  });
  Read();
}

void ClientConnection::ResetParser() {
  parser_.emplace();
  parser_->header_limit(kMaxResponseHeadBytes);
  // What is passed on does not pile up here.
  parser_->body_limit(on_bytes_ ? boost::none : boost::optional<std::uint64_t>(kMaxResponseBytes));
  parser_->skip(is_head_);
}

void ClientConnection::Read() {
  transport_->ReadSome(
      in_.prepare(kReadBytes),
      [self = shared_from_this()](ErrorCode error, size_t bytes) { self->OnRead(error, bytes); });
}

void ClientConnection::OnRead(ErrorCode error, size_t bytes) {
  if (!done_) return;
  if (error) {
    const bool end = error == asio::error::eof || error == asio::ssl::error::stream_truncated;
    if (end && any_bytes_ && parser_->need_eof() && parser_->is_header_done()) {
      ErrorCode failed;
      parser_->put_eof(failed);
      if (!failed) return FinishExchange({});
    }
    return FinishExchange(Unavailable("the connection broke: " + error.message()));
  }
  in_.commit(bytes);
  any_bytes_ = true;
  Parse();
}

void ClientConnection::Parse() {
  while (in_.size() > 0) {
    ErrorCode error;
    const size_t used = parser_->put(in_.data(), error);
    in_.consume(used);
    if (error && error != beast_http::error::need_more) {
      return FinishExchange(Unavailable("malformed answer: " + error.message()));
    }
    if (parser_->is_header_done() && !PassBody()) {
      return FinishExchange(Cancelled("the reader gave up"));
    }
    if (parser_->is_done()) {
      const unsigned status = parser_->get().result_int();
      if (status >= 200 || status == 101) return FinishExchange({});
      ResetParser();  // 1xx: the answer is still to come
      continue;
    }
    if (error || used == 0) break;
  }
  Read();
}

bool ClientConnection::PassBody() {
  auto& body = parser_->get().body();
  const unsigned status = parser_->get().result_int();
  if (!on_bytes_ || body.empty()) return true;
  if (status < 200 || status >= 300) return body.size() <= kMaxResponseBytes;
  const std::string bytes = std::move(body);
  body.clear();
  return on_bytes_(bytes);
}

bool ClientConnection::StillOpen() {
  if (!reusable_) return false;
  char byte = 0;
  const ssize_t got = recv(transport_->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

void ClientConnection::FinishExchange(Status status) {
  if (!done_) return;
  Answer answer;
  answer.status = std::move(status);
  answer.any_bytes = any_bytes_;
  if (answer.status.ok()) {
    reusable_ =
        parser_->keep_alive() && !parser_->need_eof() && !writing_ && in_.size() == 0 && !closed_;
    auto message = parser_->release();
    answer.response.status = static_cast<int>(message.result_int());
    for (const auto& field : message.base()) {
      answer.response.headers.emplace(std::string(field.name_string()), std::string(field.value()));
    }
    answer.response.body = std::move(message.body());
  }
  if (!reusable_) Close();
  if (!writing_) std::string().swap(out_);
  on_bytes_ = nullptr;
  std::exchange(done_, nullptr)(std::move(answer));
}

void ClientConnection::Close() {
  if (closed_) return;
  closed_ = true;
  reusable_ = false;
  resolver_.cancel();
  ErrorCode ignored;
  socket_.close(ignored);
  if (transport_) transport_->Close();
}

}  // namespace lepton::http
