#include "cli/import_watch.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "cli/output.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

// Short imports are over before anybody wonders.
constexpr Duration kFirst = std::chrono::milliseconds(700);
constexpr Duration kEvery = std::chrono::milliseconds(300);
constexpr Duration kLook = std::chrono::milliseconds(100);

std::string ImportText(const json& line) {
  const double done = Number(line, "done"), total = Number(line, "total");
  std::string text = Text(line, "subject") + "  " + Text(line, "phase");
  if (total > 0) text += "  " + Fixed(100 * done / total, 0) + "%";
  return text;
}

// Shows the subject's line, and calls `look`, until it is destroyed.
class Watch {
 public:
  Watch(const ApiClient& client, std::string subject, std::function<void()> look)
      : subject_(std::move(subject)),
        look_(std::move(look)),
        client_(client.Twin()),
        thread_([this] { Run(); }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
    progress_.Clear();
  }

 private:
  bool WaitFor(Duration time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return over_; });
  }
  void Run() {
    MonotonicTime show = RealClock().Now() + kFirst;
    while (!WaitFor(kLook)) {
      if (look_) look_();
      if (RealClock().Now() < show) continue;
      show = RealClock().Now() + kEvery;
      const Result<json> lines = client_->List("/v1/imports");
      if (!lines.ok()) continue;
      for (const json& line : *lines) {
        const bool ours = Text(line, "subject") == subject_ && Text(line, "phase") != "-";
        if (ours) progress_.Show(ImportText(line));
      }
    }
  }

  const std::string subject_;
  const std::function<void()> look_;
  const std::unique_ptr<ApiClient> client_;
  ProgressLine progress_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

Result<http::Response> PostWithProgress(ApiClient& client, const std::string& subject,
                                        const std::string& target, std::string body,
                                        const http::Headers& headers,
                                        const std::function<void()>& while_waiting) {
  const Watch watch(client, subject, while_waiting);
  return client.Raw("POST", target, std::move(body), headers, std::chrono::hours(24));
}

}  // namespace lepton::cli
