#include "runtime/http/transport.h"

#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

namespace lepton::http {
namespace {

using asio::ip::tcp;

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}
  tcp::socket& socket() override { return socket_; }
  void Handshake(Done done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done({}, 0); });
  }
  void ReadSome(asio::mutable_buffer buffer, Done done) override {
    socket_.async_read_some(buffer, std::move(done));
  }
  void WriteAll(asio::const_buffer buffer, Done done) override {
    asio::async_write(socket_, buffer, std::move(done));
  }
  void ShutdownSend() override {
    ErrorCode ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context, bool server,
               const std::string& host, bool verify)
      : stream_(std::make_shared<Stream>(std::move(socket), context)), server_(server) {
    if (!host.empty()) {
      SSL_set_tlsext_host_name(stream_->native_handle(), host.c_str());
      if (verify) stream_->set_verify_callback(asio::ssl::host_name_verification(host));
    }
  }
  tcp::socket& socket() override { return stream_->next_layer(); }
  void Handshake(Done done) override {
    using Base = asio::ssl::stream_base;
    stream_->async_handshake(server_ ? Base::server : Base::client,
                             [done = std::move(done)](ErrorCode error) { done(error, 0); });
  }
  void ReadSome(asio::mutable_buffer buffer, Done done) override {
    stream_->async_read_some(buffer, std::move(done));
  }
  void WriteAll(asio::const_buffer buffer, Done done) override {
    asio::async_write(*stream_, buffer, std::move(done));
  }
  // Sends close_notify; ends when the peer answers it or the socket is closed.
  void ShutdownSend() override {
    stream_->async_shutdown([keep = stream_](ErrorCode) {});
  }

 private:
  using Stream = asio::ssl::stream<tcp::socket>;
  std::shared_ptr<Stream> stream_;
  const bool server_;
};

}  // namespace

void Transport::Close() {
  ErrorCode ignored;
  socket().close(ignored);
}

std::unique_ptr<Transport> MakePlainTransport(tcp::socket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<Transport> MakeTlsTransport(tcp::socket socket, asio::ssl::context& context,
                                            bool server, const std::string& host, bool verify) {
  return std::make_unique<TlsTransport>(std::move(socket), context, server, host, verify);
}

}  // namespace lepton::http
