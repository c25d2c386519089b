#include "cli/chaos.h"

#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <random>

#include "cli/follow_job.h"
#include "cli/output.h"
#include "runtime/base/named_thread.h"

namespace lepton::cli {
namespace {

using nlohmann::json;
using Kind = ChaosPlan::Kind;

constexpr int kMostFaults = 1000;
constexpr Duration kPause = std::chrono::milliseconds(300);

bool ParseNumber(std::string_view text, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

const char* FaultName(Kind kind) {
  switch (kind) {
    case Kind::kKill:
      return "kill";
    case Kind::kKillTwo:
      return "kill two";
    case Kind::kStop:
      return "stop";
    case Kind::kPause:
      return "pause";
    case Kind::kLeave:
      return "leave";
    case Kind::kDrain:
      return "drain";
  }
  return "";
}

Result<ChaosPlan> ChaosPlan::Parse(const std::string& text) {
  ChaosPlan plan;
  uint64_t faults = 6;
  bool seeded = false;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view field = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (field.substr(0, 5) == "seed=" && ParseNumber(field.substr(5), &plan.seed)) {
      seeded = true;
    } else if (field.substr(0, 7) != "faults=" || !ParseNumber(field.substr(7), &faults)) {
      return InvalidArgument("--chaos: '" + std::string(field) +
                             "' is not seed=NUMBER or faults=NUMBER");
    }
  }
  if (!seeded) return InvalidArgument("--chaos: give a seed, such as seed=7");
  if (faults > kMostFaults) return InvalidArgument("--chaos: faults: at most 1000");
  std::mt19937_64 dice(plan.seed);
  // Integers only: the same schedule from every standard library.
  constexpr Kind kKinds[] = {Kind::kKill,  Kind::kKill,  Kind::kKill, Kind::kKillTwo, Kind::kLeave,
                             Kind::kDrain, Kind::kDrain, Kind::kStop, Kind::kPause};
  for (uint64_t i = 0; i < faults; ++i) {
    Fault fault;
    fault.at = 0.03 + static_cast<double>(dice() % 87) / 100;
    fault.kind = kKinds[dice() % std::size(kKinds)];
    fault.victim = static_cast<uint32_t>(dice() % 4096);
    plan.faults.push_back(fault);
  }
  std::stable_sort(plan.faults.begin(), plan.faults.end(),
                   [](const Fault& a, const Fault& b) { return a.at < b.at; });
  return plan;
}

Chaos::Chaos(std::string url, std::string job_id, ChaosPlan plan, AddWorker add_worker)
    : url_(std::move(url)),
      job_id_(std::move(job_id)),
      plan_(std::move(plan)),
      add_worker_(std::move(add_worker)) {
  thread_ = NamedThread("chaos", [this] { Run(); });
}

Chaos::~Chaos() {
  over_ = true;
  thread_.join();
  for (const int pid : paused_) kill(pid, SIGCONT);
}

void Chaos::Run() {
  auto client = ApiClient::ForUrl(url_);
  if (!client.ok()) return;
  for (size_t next = 0; next < plan_.faults.size() && !over_;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const Result<json> job = (*client)->Get("/v1/jobs/" + job_id_, std::chrono::seconds(10));
    if (!job.ok()) continue;
    if (IsFinal(Text(*job, "state"))) return;
    const double total = Number(*job, "progress.total_steps");
    const double step = Number(*job, "progress.step");
    const ChaosPlan::Fault& fault = plan_.faults[next];
    if (total <= 0 || step < fault.at * total) continue;
    const std::vector<Rank> ranks = Victims(*job);
    if (ranks.empty()) continue;
    std::fprintf(stderr, "chaos: %s at step %.0f\n", FaultName(fault.kind), step);
    Hurt(fault, ranks, **client);
    ++next;
  }
}

// Those of the group that trains; none while it is changing, or when nobody would be left.
std::vector<Chaos::Rank> Chaos::Victims(const json& job) {
  std::vector<Rank> ranks;
  if (job.value("group", json::object()).value("regrouping", true)) return ranks;
  for (const json& task : job.value("tasks", json::array())) {
    const int pid = static_cast<int>(Number(task, "pid"));
    if (Text(task, "state") == "STARTED" && pid > 0)
      ranks.push_back({pid, Text(task, "worker_id")});
  }
  return ranks.size() < 2 ? std::vector<Rank>() : ranks;
}

// Another worker comes first, so that the pool has as many as before.
void Chaos::Drain(const std::string& worker, ApiClient& client) {
  Status done = add_worker_();
  if (done.ok()) {
    done = client.Send("POST", "/v1/workers/" + UrlEncode(worker) + ":drain", nullptr).status();
  }
  if (!done.ok()) std::fprintf(stderr, "chaos: drain: %s\n", done.ToString().c_str());
}

void Chaos::Hurt(const ChaosPlan::Fault& fault, const std::vector<Rank>& ranks, ApiClient& client) {
  const int pid = ranks[fault.victim % ranks.size()].pid;
  switch (fault.kind) {
    case Kind::kKillTwo:
      // With two there is nobody left who could go on: that is another test's subject.
      if (ranks.size() > 2) kill(ranks[(fault.victim + 1) % ranks.size()].pid, SIGKILL);
      [[fallthrough]];
    case Kind::kKill:
      kill(pid, SIGKILL);
      return;
    case Kind::kLeave:
      kill(pid, SIGTERM);
      return;
    case Kind::kDrain:
      return Drain(ranks[fault.victim % ranks.size()].worker, client);
    case Kind::kStop:
      kill(pid, SIGSTOP);
      return;
    case Kind::kPause:
      kill(pid, SIGSTOP);
      paused_.push_back(pid);
      std::this_thread::sleep_for(kPause);
      kill(pid, SIGCONT);
      paused_.pop_back();
      return;
  }
}

}  // namespace lepton::cli
