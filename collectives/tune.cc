#include "collectives/tune.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <thread>

#include "collectives/algorithms/algorithm.h"
#include "collectives/algorithms/link_algorithms.h"
#include "collectives/backends/mesh_communicator.h"
#include "collectives/backends/native_backend.h"

namespace lepton::collectives {
namespace {

constexpr int kMaxRanks = 64, kTuneRounds = 7;
constexpr size_t kTuneAddressBytes = 1024, kMaxText = 256, kMaxSizes = 64;
// The preferred algorithm of the list keeps its place unless another is so much faster.
constexpr double kWorthIt = 0.97;
constexpr double kNotUsable = std::numeric_limits<double>::infinity();

// What the ranks of one measurement share with the process that started them.
struct Board {
  std::atomic<int> listening;
  char addresses[kMaxRanks][kTuneAddressBytes];
  double seconds[kMaxSizes];  // by size, from rank 0
  char error[kMaxText];
};

Board* MapBoard() {
  void* memory =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Board{};
}

Result<double> TimeOne(Communicator& gang, std::vector<float>& data, Duration each) {
  const auto once = [&](int repeats) -> Result<double> {
    LEPTON_RETURN_IF_ERROR(gang.Barrier());
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) {
      LEPTON_RETURN_IF_ERROR(gang.AllReduce(data.data(), data.data(), data.size(),
                                            DataType::kFloat32, ReduceOp::kMax));
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return taken.count() / repeats;
  };
  LEPTON_ASSIGN_OR_RETURN(double seconds, once(2));
  LEPTON_RETURN_IF_ERROR(gang.Broadcast(&seconds, sizeof(seconds), DataType::kUInt8, 0));
  const double budget = std::chrono::duration<double>(each).count() / kTuneRounds;
  const int repeats = static_cast<int>(std::clamp(budget / std::max(seconds, 1e-7), 1.0, 5000.0));
  std::vector<double> rounds;
  for (int round = 0; round < kTuneRounds; ++round) {
    LEPTON_ASSIGN_OR_RETURN(const double round_seconds, once(repeats));
    rounds.push_back(round_seconds);
  }
  // Whatever else runs on the machine only ever adds time.
  return *std::min_element(rounds.begin(), rounds.end());
}

Status RunTuneRank(const TuneOptions& options, const NativeOptions& native, int rank, int size,
                   Board& board) {
  const NativeBackend backend(native);
  LEPTON_ASSIGN_OR_RETURN(auto endpoint, backend.Listen("127.0.0.1"));
  const std::string address = endpoint->address();
  if (address.size() >= kTuneAddressBytes) return Internal("an endpoint's address is too long");
  std::memcpy(board.addresses[rank], address.c_str(), address.size() + 1);
  ++board.listening;
  const Deadline deadline = Deadline::In(std::chrono::seconds(20));
  while (board.listening < size) {
    if (deadline.Expired()) return DeadlineExceeded("not all ranks listen");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  GroupSpec group{rank, size, 1, "collectives-tune", {}};
  for (int r = 0; r < size; ++r) group.members.emplace_back(board.addresses[r]);
  LEPTON_ASSIGN_OR_RETURN(auto gang, backend.Join(std::move(endpoint), group, {}, deadline));
  for (size_t i = 0; i < options.bytes.size(); ++i) {
    std::vector<float> data(std::max<size_t>(1, options.bytes[i] / sizeof(float)), 1.0f);
    const Call call{.operation = Operation::kAllReduce,
                    .count = data.size(),
                    .type = DataType::kFloat32,
                    .op = ReduceOp::kMax};
    if (static_cast<MeshCommunicator&>(*gang).AlgorithmOf(call) != native.algorithm) {
      if (rank == 0) board.seconds[i] = kNotUsable;
      continue;
    }
    LEPTON_ASSIGN_OR_RETURN(const double seconds, TimeOne(*gang, data, options.each));
    if (rank == 0) board.seconds[i] = seconds;
  }
  return Status::Ok();
}

// Seconds by size.
Result<std::vector<double>> Measure(const TuneOptions& options, const NativeOptions& native,
                                    int size) {
  Board* const board = MapBoard();
  if (board == nullptr) return ResourceExhausted("no memory to tune with");
  std::fflush(nullptr);
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      const Status status = RunTuneRank(options, native, rank, size, *board);
      if (!status.ok()) std::snprintf(board->error, kMaxText, "%s", status.ToString().c_str());
      _exit(status.ok() ? 0 : 1);
    }
    if (child > 0) children.push_back(child);
  }
  bool failed = static_cast<int>(children.size()) < size;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    failed = failed || status != 0;
  }
  std::vector<double> seconds(board->seconds, board->seconds + options.bytes.size());
  const std::string error = board->error;
  munmap(board, sizeof(Board));
  if (failed) return Aborted("a rank failed: " + (error.empty() ? "it was killed" : error));
  return seconds;
}

// Of one transport and number of ranks: the fastest algorithm of each size, runs of the same one
// as one rule that ends half-way (in proportion) to the next size.
void AddRules(const TuneOptions& options, const std::string& transport, int ranks,
              const std::vector<std::string>& names,
              const std::vector<std::vector<double>>& seconds,
              std::vector<TuningTable::Rule>& rules) {
  std::string current;
  for (size_t i = 0; i < options.bytes.size(); ++i) {
    size_t best = 0;
    for (size_t k = 1; k < names.size(); ++k) {
      if (seconds[k][i] < kWorthIt * seconds[best][i]) best = k;
    }
    if (i > 0 && names[best] != current) {
      const double middle = std::sqrt(static_cast<double>(options.bytes[i - 1]) *
                                      static_cast<double>(options.bytes[i]));
      rules.push_back({transport, ranks, static_cast<size_t>(middle), current});
    }
    current = names[best];
  }
  rules.push_back({transport, ranks, TuningTable::kMax, current});
}

}  // namespace

Result<TuningTable> Tune(const TuneOptions& options) {
  if (options.bytes.empty() || options.bytes.size() > kMaxSizes) {
    return InvalidArgument("1 to " + std::to_string(kMaxSizes) + " sizes can be tuned");
  }
  std::vector<TuningTable::Rule> rules;
  for (const std::string transport : {"shm", "tcp"}) {
    for (const int ranks : options.ranks) {
      if (ranks < 2 || ranks > kMaxRanks) {
        return InvalidArgument("ranks: " + std::to_string(ranks) + " is not in 2.." +
                               std::to_string(kMaxRanks));
      }
      std::vector<std::string> names;
      std::vector<std::vector<double>> seconds;
      for (const Algorithm& algorithm : Algorithms()) {
        const std::string name(algorithm.name);
        const bool shared = name.rfind("shared", 0) == 0;
        // The ranks are on one host: what several would do is not to be seen.
        if (algorithm.operation != Operation::kAllReduce || shared != (transport == "shm") ||
            algorithm.run == HierarchicalAllReduce) {
          continue;
        }
        const NativeOptions native{
            transport == "shm" ? TransportChoice::kShm : TransportChoice::kTcp, name};
        Result<std::vector<double>> times = Measure(options, native, ranks);
        if (!times.ok()) {
          return times.status().WithContext(transport + ", " + std::to_string(ranks) + " ranks, " +
                                            name);
        }
        names.push_back(name);
        seconds.push_back(*std::move(times));
        if (!options.progress) continue;
        std::string line = transport + " " + std::to_string(ranks) + " " + name + ":";
        for (size_t i = 0; i < options.bytes.size(); ++i) {
          char text[64];
          if (seconds.back()[i] == kNotUsable) continue;
          std::snprintf(text, sizeof(text), " %zu B %.1f us", options.bytes[i],
                        1e6 * seconds.back()[i]);
          line += text;
        }
        options.progress(line);
      }
      AddRules(options, transport, ranks, names, seconds, rules);
    }
  }
  return TuningTable(TuningTable::ThisHost(), std::move(rules));
}

}  // namespace lepton::collectives
