// From the kill of one rank to the failure of every survivor's call. Ranks are processes of this
// host that sum float32 one all-reduce after the other; one of them, each in turn, gets SIGKILL at
// a moment that is another one each time. Before that every sum is checked, and behind it that each
// survivor's call says who died.
//   build/release/bench/survivor_bench [--check] [--deaths N] [shm|tcp] [ranks...]
// Default: 100 deaths of 2, 4 and 8 ranks over both; 64 bytes to 8 MB in turns. Milliseconds from
// the kill to the failed call's return, of all survivors together. 99 of a hundred should be told
// within 10 ms where each rank has a core; where it has none the scheduler's time slices are in the
// figures, and there is no goal. --check: status 1 where it was missed.
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/goals.h"
#include "bench/join_ranks.h"
#include "collectives/backends/native_backend.h"

namespace lepton::collectives {
namespace {

namespace fs = std::filesystem;

constexpr int kMostRanks = 64;
constexpr size_t kSizes[] = {64, 64 << 10, 1 << 20, 8 << 20};  // bytes
constexpr double kGoalMs = 10;
constexpr int kMissed = 1, kFailed = 2;  // exit statuses
constexpr Duration kPatience = std::chrono::seconds(30);

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "survivor_bench: " << what << "\n";
  std::exit(kFailed);
}

int64_t NowUs() {  // the same clock in all processes
  return std::chrono::duration_cast<std::chrono::microseconds>(RealClock().Now().time_since_epoch())
      .count();
}

int Cores() {
  cpu_set_t mine;
  return sched_getaffinity(0, sizeof(mine), &mine) == 0 ? CPU_COUNT(&mine) : 1;
}

// What a rank tells of itself, in memory that all share.
struct Told {
  std::atomic<bool> sums{false};  // it has summed once, rightly
  std::atomic<int64_t> failed_us{0};
  char status[256] = {};
};

class Board {
 public:
  Board() {
    void* const memory = mmap(nullptr, sizeof(Told) * kMostRanks, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) Fail("no memory to share");
    told_ = static_cast<Told*>(memory);
    for (int rank = 0; rank < kMostRanks; ++rank) new (&told_[rank]) Told;
  }
  ~Board() { munmap(told_, sizeof(Told) * kMostRanks); }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  Told& of(int rank) { return told_[rank]; }

 private:
  Told* told_;
};

struct Gang {
  TransportChoice transport;
  int size;
  size_t bytes;
};

// Sums until the group fails.
[[noreturn]] void RunRank(const Gang& gang, int rank, const fs::path& folder, Told& told) {
  const NativeBackend backend({gang.transport, ""});
  std::vector<float> in(gang.bytes / sizeof(float), 1.0f), out(in.size());
  auto made = JoinRanks(backend, rank, gang.size, "127.0.0.1", folder);
  if (!made.ok()) Fail(made.status().ToString());
  Status status;
  while (true) {
    status =
        (*made)->AllReduce(in.data(), out.data(), in.size(), DataType::kFloat32, ReduceOp::kSum);
    if (!status.ok()) break;
    const auto sum = static_cast<float>(gang.size);
    if (out.front() != sum || out.back() != sum) Fail("a sum is wrong");
    told.sums = true;
  }
  const int64_t failed_us = NowUs();
  std::strncpy(told.status, status.ToString().c_str(), sizeof(told.status) - 1);
  told.failed_us = failed_us;
  while (true) pause();  // another's death would be news to those that were not told yet
}

// Who outlives a failure of this bench itself must not be left behind.
class Ranks {
 public:
  Ranks(const Gang& gang, const fs::path& folder, Board& board) {
    for (int rank = 0; rank < gang.size; ++rank) {
      const pid_t child = fork();
      if (child < 0) Fail("cannot start a rank");
      if (child == 0) RunRank(gang, rank, folder, board.of(rank));
      pids_.push_back(child);
    }
  }
  ~Ranks() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  pid_t pid(int rank) const { return pids_[static_cast<size_t>(rank)]; }

 private:
  std::vector<pid_t> pids_;
};

template <typename Reached>
void WaitUntil(const std::string& what, const Reached& reached) {
  const auto deadline = Deadline::In(kPatience);
  while (!reached()) {
    if (deadline.Expired()) throw std::runtime_error(what);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Kills the death-th victim and adds how long each survivor's call went on.
void Die(const Gang& gang, int death, std::vector<double>& delays_ms) {
  std::string folder = (fs::temp_directory_path() / "survivor-bench.XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no folder to meet in");
  struct Removed {
    const std::string& folder;
    ~Removed() { fs::remove_all(folder); }
  } removed{folder};
  Board board;
  const Ranks ranks(gang, folder, board);
  for (int rank = 0; rank < gang.size; ++rank) {
    WaitUntil(fmt::format("rank {} does not sum", rank),
              [&] { return board.of(rank).sums.load(); });
  }
  std::this_thread::sleep_for(std::chrono::microseconds(2000 + 1237 * death % 9000));
  const int victim = death % gang.size;
  const int64_t killed_us = NowUs();
  kill(ranks.pid(victim), SIGKILL);
  for (int rank = 0; rank < gang.size; ++rank) {
    if (rank == victim) continue;
    Told& told = board.of(rank);
    WaitUntil(fmt::format("rank {} was told nothing", rank), [&] { return told.failed_us != 0; });
    if (std::string(told.status).rfind(fmt::format("ABORTED: rank {} died", victim), 0) != 0) {
      throw std::runtime_error(fmt::format("rank {} says: {}", rank, told.status));
    }
    delays_ms.push_back(static_cast<double>(told.failed_us - killed_us) / 1000);
  }
}

// Of sorted ones: the least that so many of a hundred do not exceed.
double Percentile(const std::vector<double>& sorted, double percent) {
  const double below = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(below, 1.0)) - 1];
}

// Whether the goal was met, if there is one.
bool RunDeaths(TransportChoice transport, int size, int deaths) {
  std::vector<double> delays_ms;
  for (int death = 0; death < deaths; ++death) {
    // The size changes once each rank has died.
    const size_t bytes = kSizes[static_cast<size_t>(death / size) % std::size(kSizes)];
    Die({transport, size, bytes}, death, delays_ms);
  }
  std::sort(delays_ms.begin(), delays_ms.end());
  const std::string_view name = transport == TransportChoice::kTcp ? "tcp" : "shm";
  const double p99 = Percentile(delays_ms, 99);
  std::cout << fmt::format("{:<9}  {:>5}  {:>6}  {:>6.2f}  {:>6.2f}  {:>6.2f}\n", name, size,
                           deaths, Percentile(delays_ms, 50), p99, delays_ms.back())
            << std::flush;
  if (size > Cores()) return true;
  return goals::AtMost(
      fmt::format("{}, {} ranks: ms from a kill to a survivor's failed call, p99", name, size), p99,
      kGoalMs);
}

int Main(const std::vector<std::string>& arguments) {
  bool check = false;
  int deaths = 100;
  std::string only;
  std::vector<int> ranks;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const int number = std::atoi(argument.c_str());
    if (argument == "--check") {
      check = true;
    } else if (argument == "--deaths" && i + 1 < arguments.size()) {
      deaths = std::max(1, std::atoi(arguments[++i].c_str()));
    } else if (argument == "shm" || argument == "tcp") {
      only = argument;
    } else if (number >= 2 && number <= kMostRanks) {
      ranks.push_back(number);
    } else {
      std::cerr << "usage: survivor_bench [--check] [--deaths N] [shm|tcp] [ranks...]\n";
      return kFailed;
    }
  }
  if (ranks.empty()) ranks = {2, 4, 8};
  std::cout << fmt::format("{} cores; no goal for more ranks than that\n", Cores())
            << "transport  ranks  deaths  p50 ms  p99 ms  max ms" << std::endl;
  bool met = true;
  for (const TransportChoice transport : {TransportChoice::kShm, TransportChoice::kTcp}) {
    if (!only.empty() && (only == "tcp") != (transport == TransportChoice::kTcp)) continue;
    for (const int size : ranks) met = RunDeaths(transport, size, deaths) && met;
  }
  return check && !met ? kMissed : 0;
}

}  // namespace
}  // namespace lepton::collectives

int main(int argc, char** argv) {
  try {
    return lepton::collectives::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "survivor_bench: " << error.what() << "\n";
    return lepton::collectives::kFailed;
  }
}
