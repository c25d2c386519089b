// A job's events, log lines and metric points: as pages of JSON, or followed as server-sent events.
// Both read the same source after the same number, so a reader that lost its connection goes on
// where it was with ?after= or Last-Event-ID and misses nothing.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <mutex>

#include "scheduler/api/handlers.h"
#include "scheduler/api/respond.h"
#include "scheduler/api/views.h"
#include "scheduler/core/job_state.h"

namespace lepton::api {
namespace {

using nlohmann::json;

constexpr size_t kFollowPage = 200;
constexpr Duration kKeepAlive = std::chrono::seconds(10);
// A follower's connection is cut off with 1 MiB unsent, so a long backlog goes out in portions,
// each when the one before has left. A row goes out whole.
constexpr size_t kPortionBytes = size_t{256} << 10;
constexpr Duration kPortionPause = std::chrono::milliseconds(5);
constexpr Duration kLongestPause = std::chrono::milliseconds(250);

// One row of the source: what is sent together, resumed after its number.
struct FeedRow {
  uint64_t seq = 0;
  std::vector<json> items;
};

enum class Feed { kEvents, kLogs, kMetrics };

std::string_view EventName(Feed feed) {
  switch (feed) {
    case Feed::kEvents:
      return "event";
    case Feed::kLogs:
      return "log";
    case Feed::kMetrics:
      break;
  }
  return "metric";
}

std::vector<FeedRow> EventRows(const scheduler::Job& job, uint64_t after, size_t limit) {
  std::vector<FeedRow> rows;
  for (const auto& event : job.events()) {
    if (event.seq() <= after) continue;
    // Several events of one record share its number and stay together.
    if (!rows.empty() && rows.back().seq == event.seq()) {
      rows.back().items.push_back(EventView(event));
      continue;
    }
    if (rows.size() == limit) break;
    rows.push_back({event.seq(), {EventView(event)}});
  }
  return rows;
}

Result<std::vector<FeedRow>> LogRows(const scheduler::History& history, const JobId& job,
                                     uint64_t after, size_t limit) {
  LEPTON_ASSIGN_OR_RETURN(const auto rows, history.Logs(job, after, limit));
  std::vector<FeedRow> out;
  for (const auto& row : rows) {
    FeedRow feed{row.seq, {}};
    for (const auto& line : row.lines) {
      feed.items.push_back(
          {{"seq", row.seq}, {"time_ms", row.time_ms}, {"task_id", row.task_id}, {"line", line}});
    }
    out.push_back(std::move(feed));
  }
  return out;
}

Result<std::vector<FeedRow>> MetricRows(const scheduler::History& history, const JobId& job,
                                        uint64_t after, size_t limit) {
  LEPTON_ASSIGN_OR_RETURN(const auto rows, history.Metrics(job, after, limit));
  std::vector<FeedRow> out;
  for (const auto& row : rows) {
    FeedRow feed{row.seq, {}};
    for (const auto& [key, value] : row.values) {
      feed.items.push_back({{"seq", row.seq},
                            {"time_ms", row.time_ms},
                            {"attempt", row.attempt},
                            {"trial", row.trial},
                            {"task_id", row.task_id},
                            {"key", key},
                            {"step", row.step},
                            {"value", value}});
    }
    out.push_back(std::move(feed));
  }
  return out;
}

Result<std::vector<FeedRow>> StoredRows(const scheduler::History& history, Feed feed,
                                        const JobId& job, uint64_t after, size_t limit) {
  return feed == Feed::kLogs ? LogRows(history, job, after, limit)
                             : MetricRows(history, job, after, limit);
}

json Page(const std::vector<FeedRow>& rows, uint64_t after) {
  json items = json::array();
  for (const auto& row : rows) {
    for (const auto& item : row.items) items.push_back(item);
  }
  return {{"items", std::move(items)}, {"next_after", rows.empty() ? after : rows.back().seq}};
}

// Only a row's last event carries the id: a reader that saw half of a row asks for it again.
std::string ToSse(Feed feed, const FeedRow& row) {
  std::string text;
  for (size_t i = 0; i < row.items.size(); ++i) {
    if (i + 1 == row.items.size()) text += fmt::format("id: {}\n", row.seq);
    text += fmt::format("event: {}\ndata: {}\n\n", EventName(feed), Dump(row.items[i]));
  }
  return text;
}

// One connection that follows one feed of one job until the job is over and all is sent.
// The state loop wakes it and gives it events; log and metric rows are read on the pool.
class Follower : public std::enable_shared_from_this<Follower> {
 public:
  Follower(Api& api, Feed feed, JobId job, uint64_t after, std::shared_ptr<http::Stream> stream)
      : api_(api), feed_(feed), job_(std::move(job)), after_(after), stream_(std::move(stream)) {}

  // On the state loop.
  void Start(const scheduler::State& state) {
    ticket_ = api_.parts().watch.Watch(
        job_, [self = shared_from_this()](const scheduler::State& now) { return self->Wake(now); });
    KeepAlive();
    Wake(state);
  }

 private:
  // On the state loop. False when this follower has ended.
  bool Wake(const scheduler::State& state) {
    if (!stream_->open()) return false;
    const scheduler::Job* job = state.FindJob(job_);
    if (job == nullptr) return Close();
    // No `end`: the reader finds the next coordinator and goes on.
    if (api_.parts().watch.closing()) return stream_->Close(), false;
    // Read before the rows: what is final now has no rows to come.
    const bool final = scheduler::IsTerminal(job->state());
    if (feed_ != Feed::kEvents) return PumpStored(final);
    std::vector<FeedRow> rows = EventRows(*job, after_, kFollowPage);
    while (!rows.empty()) {
      size_t count = 0;
      if (!SendPortion(rows, &count)) return false;
      rows = EventRows(*job, after_, kFollowPage);
    }
    return final ? Close() : true;
  }

  bool PumpStored(bool final) {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    final_ = final_ || final;
    again_ = true;
    if (!pumping_) {
      pumping_ = true;
      Pump();
    }
    return true;
  }

  void Pump() {
    api_.parts().pool.Submit([self = shared_from_this()] { self->PumpOnce(); });
  }

  // Once the client has taken what it was sent; it is looked at less and less often.
  void PumpLater(Duration pause) {
    api_.parts().loop.After(pause, [self = shared_from_this(), pause](const scheduler::State&) {
      if (self->stream_->pending() == 0 || !self->stream_->open()) return self->Pump();
      self->PumpLater(std::min(2 * pause, kLongestPause));
    });
  }

  // On a pool thread, one at a time. Sends one portion, then waits until it has left.
  void PumpOnce() {
    bool final = false;
    {
      std::lock_guard lock(mutex_);
      again_ = false;
      final = final_;
    }
    const auto rows = StoredRows(api_.parts().history, feed_, job_, after_, kFollowPage);
    size_t count = 0;
    const bool sent = rows.ok() && SendPortion(*rows, &count);
    const bool more = sent && (count < rows->size() || count == kFollowPage);
    std::lock_guard lock(mutex_);
    if (!sent) {
      closed_ = true;
      stream_->Close();  // no `end`: there may be more, which the reader comes back for
    } else if (final && !more && stream_->pending() == 0) {
      closed_ = true;
      Close();
    } else if (more || stream_->pending() > 0) {
      PumpLater(kPortionPause);
    } else if (again_) {
      Pump();
    } else {
      pumping_ = false;
    }
  }

  // The first `count` of the rows.
  bool SendPortion(const std::vector<FeedRow>& rows, size_t* count) {
    std::string text;
    while (*count < rows.size() && text.size() < kPortionBytes) {
      const FeedRow& row = rows[(*count)++];
      text += ToSse(feed_, row);
      after_ = row.seq;
    }
    return text.empty() || stream_->Write(text);
  }

  bool Close() {
    stream_->Write("event: end\ndata: {}\n\n");
    stream_->Close();
    return false;
  }

  // A comment line, so that a client that is gone is noticed and one that waits knows we live.
  void KeepAlive() {
    api_.parts().loop.After(kKeepAlive, [weak = weak_from_this()](const scheduler::State&) {
      const auto self = weak.lock();
      if (self == nullptr) return;
      // Not behind what is still on its way, which says itself that the feed is there.
      const bool waits = self->stream_->pending() > 0;
      if (self->stream_->open() && (waits || self->stream_->Write(":\n\n"))) {
        self->KeepAlive();
      } else {
        self->api_.parts().watch.Forget(self->job_, self->ticket_);
      }
    });
  }

  Api& api_;
  const Feed feed_;
  const JobId job_;
  uint64_t ticket_ = 0;
  uint64_t after_;  // the loop's for events, the pump's for the rest
  const std::shared_ptr<http::Stream> stream_;
  std::mutex mutex_;
  bool pumping_ = false, again_ = false, final_ = false, closed_ = false;
};

void Follow(Api& api, Feed feed, const JobId& job, uint64_t after,
            const http::ResponderPtr& responder, const scheduler::State& state) {
  http::Headers headers;
  headers.emplace("Content-Type", "text/event-stream");
  headers.emplace("Cache-Control", "no-store");
  headers.emplace("X-Accel-Buffering", "no");
  auto stream = responder->StartStream(200, std::move(headers));
  if (stream == nullptr) return;
  std::make_shared<Follower>(api, feed, job, after, std::move(stream))->Start(state);
}

Result<uint64_t> ParseAfter(const http::Request& request) {
  LEPTON_ASSIGN_OR_RETURN(const int64_t after, QueryInt(request, "after", 0, 0, INT64_MAX));
  const std::string last = request.Header("Last-Event-ID");
  if (last.empty() || request.query.contains("after")) return static_cast<uint64_t>(after);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), value);
  if (error != std::errc() || end != last.data() + last.size()) {
    return InvalidArgument(fmt::format("Last-Event-ID: \"{}\" is no number", last));
  }
  return value;
}

void GetFeed(Api& api, Feed feed, const http::Request& request,
             const http::ResponderPtr& responder) {
  const auto after = ParseAfter(request);
  if (!after.ok()) return SendProblem(responder, after.status());
  const auto follow = QueryFlag(request, "follow");
  if (!follow.ok()) return SendProblem(responder, follow.status());
  const auto limit = QueryInt(request, "limit", 1000, 1, 10'000);
  if (!limit.ok()) return SendProblem(responder, limit.status());

  const JobId id(Param(request, "id"));
  api.parts().loop.Read([&api, feed, id, after = *after, follow = *follow,
                         limit = static_cast<size_t>(*limit),
                         responder](const scheduler::State& state) {
    const scheduler::Job* job = state.FindJob(id);
    if (job == nullptr) {
      return SendProblem(responder, state.NoJob(id));
    }
    if (follow) return Follow(api, feed, id, after, responder, state);
    if (feed == Feed::kEvents) {
      return SendJson(responder, 200, Page(EventRows(*job, after, limit), after));
    }
    api.parts().pool.Submit([&api, feed, id, after, limit, responder] {
      const auto rows = StoredRows(api.parts().history, feed, id, after, limit);
      if (!rows.ok()) return SendProblem(responder, rows.status());
      SendJson(responder, 200, Page(*rows, after));
    });
  });
}

}  // namespace

void GetEvents(Api& api, http::Request request, http::ResponderPtr responder) {
  GetFeed(api, Feed::kEvents, request, responder);
}
void GetLogs(Api& api, http::Request request, http::ResponderPtr responder) {
  GetFeed(api, Feed::kLogs, request, responder);
}
void GetMetrics(Api& api, http::Request request, http::ResponderPtr responder) {
  GetFeed(api, Feed::kMetrics, request, responder);
}

}  // namespace lepton::api
