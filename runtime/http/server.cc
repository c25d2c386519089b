#include "runtime/http/server.h"

#include <glog/logging.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/strand.hpp>
#include <thread>

#include "runtime/base/descriptors.h"
#include "runtime/base/named_thread.h"
#include "runtime/http/server_core.h"
#include "runtime/http/session.h"
#include "runtime/http/transport.h"

namespace lepton::http {
namespace {

using asio::ip::tcp;

constexpr Duration kAcceptRetry = std::chrono::milliseconds(50);
constexpr size_t kMaxRejecting = 64;  // connections beyond the limit that still get a 503

Status LoadTls(ServerCore& core) {
  const ServerOptions& options = core.options;
  if (options.tls_certificate_file.empty() && options.tls_key_file.empty()) return {};
  if (options.tls_certificate_file.empty() || options.tls_key_file.empty()) {
    return InvalidArgument("tls: a certificate file and a key file are needed, only one is given");
  }
  using Context = asio::ssl::context;
  Context& context = core.tls.emplace(Context::tls_server);
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  ErrorCode error;
  context.use_certificate_chain_file(options.tls_certificate_file, error);
  if (error)
    return InvalidArgument("tls: " + options.tls_certificate_file + ": " + error.message());
  context.use_private_key_file(options.tls_key_file, Context::pem, error);
  if (error) return InvalidArgument("tls: " + options.tls_key_file + ": " + error.message());
  return {};
}

// Accepts connections and makes sessions. Threads: on its socket's strand.
class Listener : public std::enable_shared_from_this<Listener> {
 public:
  explicit Listener(std::shared_ptr<ServerCore> core)
      : core_(std::move(core)),
        acceptor_(asio::make_strand(core_->io)),
        retry_(acceptor_.get_executor()) {}

  Status Open() {
    const ServerOptions& options = core_->options;
    ErrorCode error;
    const auto address = asio::ip::make_address(options.address, error);
    if (error) return InvalidArgument("address: " + options.address + " is no IP address");
    const tcp::endpoint endpoint(address, options.port);
    const std::string where = options.address + ":" + std::to_string(options.port);
    acceptor_.open(endpoint.protocol(), error);
    if (error) return Internal("socket: " + error.message());
    acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    acceptor_.bind(endpoint, error);
    if (error == asio::error::address_in_use) {
      return FailedPrecondition(where + " is in use: choose another port or 0");
    }
    if (error) return InvalidArgument("address: " + where + ": " + error.message());
    acceptor_.listen(1024, error);
    if (error) return FailedPrecondition(where + ": " + error.message());
    port_ = acceptor_.local_endpoint(error).port();
    return {};
  }

  uint16_t port() const { return port_; }

  void Accept() {
    acceptor_.async_accept(asio::make_strand(core_->io),
                           [self = shared_from_this()](ErrorCode error, tcp::socket socket) {
                             self->OnAccept(error, std::move(socket));
                           });
  }

  void PostClose() {
    core_->Post(acceptor_.get_executor(), [self = shared_from_this()] {
      ErrorCode ignored;
      self->acceptor_.close(ignored);
      self->retry_.cancel();
    });
  }

 private:
  void OnAccept(ErrorCode error, tcp::socket socket) {
    if (core_->stopping || error == asio::error::operation_aborted) return;
    if (!error) {
      Adopt(std::move(socket));
    } else if (error != asio::error::connection_aborted) {
      // Out of file descriptors, most likely: the queue of the kernel holds the clients meanwhile.
      LOG_EVERY_N(WARNING, 100) << "http accept: " << error.message();
      retry_.expires_after(kAcceptRetry);
      retry_.async_wait([self = shared_from_this()](ErrorCode cancelled) {
        if (!cancelled && !self->core_->stopping) self->Accept();
      });
      return;
    }
    Accept();
  }

  void Adopt(tcp::socket socket) {
    ErrorCode error;
    socket.set_option(tcp::no_delay(true), error);
    const tcp::endpoint remote = socket.remote_endpoint(error);
    if (error) return;
    const auto executor = socket.get_executor();
    std::string peer = remote.address().to_string() + ":" + std::to_string(remote.port());
    auto transport = core_->tls ? MakeTlsTransport(std::move(socket), *core_->tls, true)
                                : MakePlainTransport(std::move(socket));
    bool reject = false;
    std::shared_ptr<Session> session;
    {
      std::lock_guard lock(core_->sessions_mutex);
      if (core_->stopping) return;  // Stop, which sets it first, will not see a later session
      reject = core_->sessions.size() >= core_->options.max_connections;
      const size_t bound = core_->options.max_connections + (core_->tls ? 0 : kMaxRejecting);
      if (core_->sessions.size() >= bound) return;
      session = std::make_shared<Session>(core_, std::move(transport), std::move(peer));
      core_->sessions.emplace(session.get(), session);
    }
    core_->Post(executor, [session, reject] { session->Start(reject); });
  }

  const std::shared_ptr<ServerCore> core_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  uint16_t port_ = 0;
};

class AsioServer final : public Server {
 public:
  AsioServer(std::shared_ptr<ServerCore> core, std::shared_ptr<Listener> listener)
      : core_(std::move(core)), listener_(std::move(listener)), work_(core_->io.get_executor()) {
    core_->Post(core_->io.get_executor(), [listener = listener_] { listener->Accept(); });
    for (int i = 0; i < std::max(1, core_->options.threads); ++i) {
      threads_.push_back(NamedThread("http-server", [core = core_] { Run(*core); }));
    }
  }

  ~AsioServer() override { Stop(Duration::zero()); }

  uint16_t port() const override { return listener_->port(); }

  void Stop(Duration grace) override {
    std::lock_guard stop_lock(stop_mutex_);
    if (threads_.empty()) return;
    core_->stopping = true;
    listener_->PostClose();
    ForEachSession([](Session& session) { session.PostDrain(); });
    const auto until = std::chrono::steady_clock::now() + grace;
    {
      std::unique_lock lock(core_->sessions_mutex);
      core_->sessions_changed.wait_until(lock, until, [this] { return core_->sessions.empty(); });
    }
    ForEachSession([](Session& session) { session.PostClose(); });
    work_.reset();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    {
      std::unique_lock lock(core_->stopped_mutex);
      core_->stopped = true;
    }
    // What was posted between the last thread's end and `stopped`.
    core_->io.restart();
    core_->io.poll();
    core_->handler = nullptr;
  }

 private:
  static void Run(ServerCore& core) {
    while (true) {
      try {
        core.io.run();
        return;
      } catch (const std::exception& error) {
        LOG(ERROR) << "http: " << error.what();
      }
    }
  }

  template <typename Work>
  void ForEachSession(Work work) {
    std::vector<std::shared_ptr<Session>> sessions;
    {
      std::lock_guard lock(core_->sessions_mutex);
      for (const auto& [pointer, weak] : core_->sessions) {
        if (auto session = weak.lock()) sessions.push_back(std::move(session));
      }
    }
    for (const auto& session : sessions) work(*session);
  }

  const std::shared_ptr<ServerCore> core_;
  const std::shared_ptr<Listener> listener_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::mutex stop_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Handler handler) {
  auto core = std::make_shared<ServerCore>();
  core->options = options;
  // A request may need a second one, and the process has others to open: files, other listeners.
  const size_t limit = DescriptorLimit();
  core->options.max_connections =
      std::min(options.max_connections, std::max<size_t>(1, (limit - limit / 4) / 2));
  core->handler = std::move(handler);
  LEPTON_RETURN_IF_ERROR(LoadTls(*core));
  auto listener = std::make_shared<Listener>(core);
  LEPTON_RETURN_IF_ERROR(listener->Open());
  return std::unique_ptr<Server>(new AsioServer(std::move(core), std::move(listener)));
}

}  // namespace lepton::http
