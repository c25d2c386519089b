#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <thread>

#include "runtime/base/named_thread.h"

#include "runtime/http/connection.h"

namespace lepton::http {
namespace {

constexpr Duration kMaxIdle = std::chrono::seconds(60);

// What calls share; outlives the client while a Cancel function refers to a call.
struct Pool {
  using Host = std::pair<std::string, uint16_t>;
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  asio::io_context io;
  size_t max_idle_per_host = 0;
  std::mutex mutex;
  std::map<Host, std::vector<Idle>> idle;
  bool closing = false;

  std::shared_mutex stopped_mutex;
  bool stopped = false;
  template <typename Executor, typename Work>
  void Post(const Executor& executor, Work&& work) {
    std::shared_lock lock(stopped_mutex);
    if (!stopped) asio::post(executor, std::forward<Work>(work));
  }

  // The idle connection used last, or null: the caller opens one. Before that, those of all servers
  // that are of no use any more go: one that has moved is never asked for by its old address again.
  std::shared_ptr<ClientConnection> Take(const Host& host) {
    std::lock_guard lock(mutex);
    const auto now = std::chrono::steady_clock::now();
    const auto list = idle.find(host);
    if (list != idle.end() && !list->second.empty() &&
        now - list->second.back().since <= kMaxIdle) {
      auto connection = std::move(list->second.back().connection);
      list->second.pop_back();
      return connection;
    }
    for (auto& [other, kept] : idle) {
      std::erase_if(kept, [now](const Idle& one) {
        return now - one.since > kMaxIdle || !one.connection->StillOpen();
      });
    }
    std::erase_if(idle, [](const auto& entry) { return entry.second.empty(); });
    return nullptr;
  }
  // False when there is no room: the caller closes it.
  bool Give(const Host& host, std::shared_ptr<ClientConnection> connection) {
    std::lock_guard lock(mutex);
    auto& list = idle[host];
    if (closing || list.size() >= max_idle_per_host) return false;
    list.push_back({std::move(connection), std::chrono::steady_clock::now()});
    return true;
  }
};

// One call. Threads: on its connection's strand, but Start and PostCancel from any thread.
class PendingCall : public std::enable_shared_from_this<PendingCall> {
 public:
  PendingCall(std::shared_ptr<Pool> pool, Pool::Host host, Request request, AsyncClient::Done done)
      : pool_(std::move(pool)),
        host_(std::move(host)),
        is_head_(request.method == "HEAD"),
        wire_(SerializeRequest(request, HostHeader(host_.first, host_.second))),
        done_(std::move(done)),
        connection_(pool_->Take(host_)),
        reused_(connection_ != nullptr),
        executor_(reused_ ? connection_->executor()
                          : asio::any_io_executor(asio::make_strand(pool_->io))),
        timer_(executor_) {}

  void Start(Duration timeout) {
    pool_->Post(executor_, [self = shared_from_this(), timeout] { self->Begin(timeout); });
  }

  void PostCancel() {
    pool_->Post(executor_,
                [self = shared_from_this()] { self->Finish(Cancelled("the call was given up")); });
  }

 private:
  void Begin(Duration timeout) {
    if (!done_) return;
    timer_.expires_after(timeout);
    timer_.async_wait([self = shared_from_this()](ErrorCode error) {
      if (!error) self->Finish(DeadlineExceeded(self->Where() + ": no answer in time"));
    });
    if (reused_ && connection_->StillOpen()) return Exchange();
    reused_ = false;
    Connect();
  }

  void Connect() {
    connection_ = std::make_shared<ClientConnection>(executor_);
    connection_->Connect(host_.first, host_.second, nullptr, false,
                         [self = shared_from_this()](Status status) {
                           if (!self->done_) return;
                           if (!status.ok())
                             return self->Finish(self->sent_ ? Aborted(status.message()) : status);
                           self->Exchange();
                         });
  }

  void Exchange() {
    sent_ = true;
    connection_->Exchange(wire_, is_head_, nullptr,
                          [self = shared_from_this()](ClientConnection::Answer answer) {
                            self->OnAnswer(std::move(answer));
                          });
  }

  void OnAnswer(ClientConnection::Answer answer) {
    if (!done_) return;
    if (!answer.status.ok()) {
      if (reused_ && !answer.any_bytes) {
        reused_ = false;
        return Connect();
      }
      return Finish(Aborted(Where() + ": " + answer.status.message()));
    }
    if (connection_->reusable() && pool_->Give(host_, connection_)) connection_.reset();
    Finish(std::move(answer.response));
  }

  void Finish(Result<Response> result) {
    if (!done_) return;
    timer_.cancel();
    auto done = std::exchange(done_, nullptr);
    if (connection_) connection_->Close();
    connection_.reset();
    done(std::move(result));
  }

  std::string Where() const { return HostHeader(host_.first, host_.second); }

  const std::shared_ptr<Pool> pool_;
  const Pool::Host host_;
  const bool is_head_;
  const std::string wire_;
  AsyncClient::Done done_;
  std::shared_ptr<ClientConnection> connection_;
  bool reused_;
  bool sent_ = false;  // the server may have seen the request
  const asio::any_io_executor executor_;
  asio::steady_timer timer_;
};

class PoolingClient final : public AsyncClient {
 public:
  PoolingClient(int threads, size_t max_idle_per_host) : work_(pool_->io.get_executor()) {
    pool_->max_idle_per_host = max_idle_per_host;
    for (int i = 0; i < std::max(1, threads); ++i) {
      threads_.push_back(NamedThread("http-client", [pool = pool_] { pool->io.run(); }));
    }
  }

  ~PoolingClient() override {
    std::map<Pool::Host, std::vector<Pool::Idle>> idle;
    {
      std::lock_guard lock(pool_->mutex);
      pool_->closing = true;
      idle.swap(pool_->idle);
    }
    idle.clear();
    {
      std::lock_guard lock(calls_mutex_);
      for (const auto& weak : calls_) {
        if (const auto call = weak.lock()) call->PostCancel();
      }
    }
    work_.reset();
    for (std::thread& thread : threads_) thread.join();
    {
      std::unique_lock lock(pool_->stopped_mutex);
      pool_->stopped = true;
    }
    pool_->io.restart();
    pool_->io.poll();
  }

  Cancel Call(const std::string& host, uint16_t port, Request request, Duration timeout,
              Done done) override {
    auto call = std::make_shared<PendingCall>(pool_, Pool::Host(host, port), std::move(request),
                                              std::move(done));
    {
      std::lock_guard lock(calls_mutex_);
      if (++calls_made_ % 64 == 0) {
        std::erase_if(calls_, [](const auto& weak) { return weak.expired(); });
      }
      calls_.push_back(call);
    }
    call->Start(timeout);
    return [weak = std::weak_ptr(call)] {
      if (const auto alive = weak.lock()) alive->PostCancel();
    };
  }

 private:
  const std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::mutex calls_mutex_;
  std::vector<std::weak_ptr<PendingCall>> calls_;
  uint64_t calls_made_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<AsyncClient> AsyncClient::Make(int threads, size_t max_idle_per_host) {
  return std::make_unique<PoolingClient>(threads, max_idle_per_host);
}

}  // namespace lepton::http
