// What a server's sessions share. Owned by the Server and by every session, so that an answer given
// after Stop finds an io_context to do nothing on.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

#include "runtime/http/server.h"

namespace lepton::http {

class Session;

struct ServerCore {
  ServerOptions options;
  Handler handler;
  boost::asio::io_context io;
  std::optional<boost::asio::ssl::context> tls;
  std::atomic<bool> stopping{false};

  // Runs `work` on `executor` later; not at all once the server has stopped. Threads: any.
  template <typename Executor, typename Work>
  void Post(const Executor& executor, Work&& work) {
    std::shared_lock lock(stopped_mutex);
    if (!stopped) boost::asio::post(executor, std::forward<Work>(work));
  }

  std::shared_mutex stopped_mutex;
  bool stopped = false;  // no thread runs `io` any more

  std::mutex sessions_mutex;
  std::condition_variable sessions_changed;
  std::unordered_map<Session*, std::weak_ptr<Session>> sessions;  // those not closed yet
};

}  // namespace lepton::http
