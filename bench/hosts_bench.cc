// One rank of bench/hosts_bench.py: float32 sums among ranks on several hosts, all-reduced and
// scattered, in two ways in turns: by the owner algorithm (every rank gives every other its part)
// and by the hierarchical one, or with two numbers of lanes. The bits are compared.
//   hosts_bench RANK SIZE ADDRESS HOST FOLDER [LANES LANES]
// FOLDER is where the ranks find each other's addresses. Rank 0 prints the medians.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/join_ranks.h"
#include "collectives/backends/native_backend.h"

namespace lepton::collectives {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBytes[] = {64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20};

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "hosts_bench: " << what << "\n";
  std::exit(1);
}

struct Place {
  int rank, size;
  std::string address, host;
  fs::path folder;
};

struct Way {
  std::string name;
  NativeOptions native;
};

std::unique_ptr<Communicator> Join(const Place& place, const Way& way) {
  const NativeBackend backend(way.native);
  auto gang = JoinRanks(backend, place.rank, place.size, place.address, place.folder, way.name);
  if (!gang.ok()) Fail(gang.status().ToString());
  return *std::move(gang);
}

void Check(const Status& status) {
  if (!status.ok()) Fail(status.ToString());
}

double MedianMs(std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// `bytes` of each rank. `scatter`: each rank gets its part of the sum, else all of it.
void Compare(const Place& place, const Way (&ways)[2], std::unique_ptr<Communicator> (&gangs)[2],
             bool scatter, size_t bytes) {
  const auto ranks = static_cast<size_t>(place.size);
  const size_t count = bytes / sizeof(float) / ranks * ranks;
  const size_t results = scatter ? count / ranks : count;
  std::vector<float> in(count), out[2] = {std::vector<float>(results), std::vector<float>(results)};
  for (size_t i = 0; i < count; ++i) {
    in[i] = static_cast<float>((i * 2654435761u + static_cast<size_t>(place.rank) * 97) % 1000003) /
            1009.0f;
  }
  std::vector<double> times[2];
  const int rounds = static_cast<int>(std::clamp<size_t>((size_t{32} << 20) / bytes, 3, 21));
  for (int round = 0; round <= rounds; ++round) {
    for (int way = 0; way < 2; ++way) {
      Communicator& gang = *gangs[way];
      Check(gang.Barrier());
      const auto begin = std::chrono::steady_clock::now();
      float* const sum = out[way].data();
      Check(scatter
                ? gang.ReduceScatter(in.data(), sum, results, DataType::kFloat32, ReduceOp::kSum)
                : gang.AllReduce(in.data(), sum, results, DataType::kFloat32, ReduceOp::kSum));
      Check(gang.Barrier());
      const std::chrono::duration<double, std::milli> taken =
          std::chrono::steady_clock::now() - begin;
      if (round > 0) times[way].push_back(taken.count());
    }
  }
  if (std::memcmp(out[0].data(), out[1].data(), results * sizeof(float)) != 0)
    Fail("the sums have other bits");
  if (place.rank != 0) return;
  const double one = MedianMs(times[0]), other = MedianMs(times[1]);
  std::cout << fmt::format("{:>14} {:>8} KiB  {} {:9.2f} ms  {} {:9.2f} ms  {:.2f}\n",
                           scatter ? "reduce-scatter" : "all-reduce", bytes >> 10, ways[0].name,
                           one, ways[1].name, other, other / one)
            << std::flush;
}

int Main(const Place& place, const Way (&ways)[2]) {
  std::unique_ptr<Communicator> gangs[] = {Join(place, ways[0]), Join(place, ways[1])};
  for (const bool scatter : {false, true}) {
    for (const size_t bytes : kBytes) Compare(place, ways, gangs, scatter, bytes);
  }
  return 0;
}

}  // namespace
}  // namespace lepton::collectives

int main(int argc, char** argv) {
  using lepton::collectives::Way;
  if (argc != 6 && argc != 8) {
    std::cerr << "usage: hosts_bench RANK SIZE ADDRESS HOST FOLDER [LANES LANES]; "
                 "bench/hosts_bench.py starts it\n";
    return 2;
  }
  const auto by_algorithm = [&](const char* name) {
    return Way{name, {.algorithm = name, .host = argv[4]}};
  };
  const auto by_lanes = [&](const char* number) {
    return Way{std::string("lanes ") + number, {.host = argv[4], .lanes = std::atoi(number)}};
  };
  const Way algorithms[] = {by_algorithm("owner"), by_algorithm("hierarchical")};
  const Way lanes[] = {by_lanes(argv[argc - 2]), by_lanes(argv[argc - 1])};
  return lepton::collectives::Main(
      {std::atoi(argv[1]), std::atoi(argv[2]), argv[3], argv[4], argv[5]},
      argc == 6 ? algorithms : lanes);
}
