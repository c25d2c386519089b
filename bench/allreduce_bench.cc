// All-reduce of float32 sums: the native back-end against MPI_Allreduce and, where it was found,
// Gloo over TCP, in the same processes on the same buffers in one run. Rounds alternate, so that a
// busy machine slows all. Results are compared before anything is timed. A ratio below 1 means that
// we are faster. With more ranks than cores Open MPI is told to yield. Our shared memory is
// compared with what Open MPI chooses (its shared memory), our TCP with its TCP (btl tcp). No rank
// is bound to a core: Gloo has a thread beside each rank. Ratios are of the medians; in brackets is
// what the rounds' ratios to the faster peer were, without their first and last quarters. Wanted of
// the faster peer's time: all of it up to 4 KB, half from 256 KB on, all at any size where ranks
// share cores.
//   build/release/bench/allreduce_bench [ranks...]     starts mpirun by itself; default 2 and 4
// Less of it: ALLREDUCE_BENCH_ONLY=shm|tcp, ALLREDUCE_BENCH_BYTES=512-65536,
// ALLREDUCE_BENCH_GLOO=0; LEPTON_COLLECTIVES_ALGORITHM as everywhere.
#include <mpi.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef LEPTON_HAS_GLOO
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/goals.h"
#include "collectives/backends/native_backend.h"

namespace lepton::collectives {
namespace {

constexpr size_t kMaxAddress = 512;
constexpr int kRounds = 15;
constexpr size_t kSmall = 4 << 10, kLarge = 256 << 10;  // bytes, up to and from
constexpr double kOfSmall = 1, kOfLarge = 0.5, kOfCrowded = 1;

std::string Environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

int Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  MPI_Abort(MPI_COMM_WORLD, 1);
  return 1;
}

double Now() {
  return std::chrono::duration<double>(RealClock().Now().time_since_epoch()).count();
}

Result<std::unique_ptr<Communicator>> JoinNative(const Backend& backend, int rank, int size) {
  LEPTON_ASSIGN_OR_RETURN(auto endpoint, backend.Listen("127.0.0.1"));
  std::string own = endpoint->address();
  char mine[kMaxAddress] = {};
  std::memcpy(mine, own.data(), std::min(own.size(), kMaxAddress - 1));
  std::vector<char> all(kMaxAddress * static_cast<size_t>(size));
  MPI_Allgather(mine, kMaxAddress, MPI_CHAR, all.data(), kMaxAddress, MPI_CHAR, MPI_COMM_WORLD);
  GroupSpec group{rank, size, 1, "0123456789abcdef", {}};
  for (int r = 0; r < size; ++r) group.members.emplace_back(&all[r * kMaxAddress]);
  return backend.Join(std::move(endpoint), group, {}, Deadline::In(std::chrono::seconds(20)));
}

struct Buffers {
  std::vector<float> in, ours, theirs, gloo;
};

#ifdef LEPTON_HAS_GLOO
class Gloo {
 public:
  Gloo(int rank, int size) {
    if (!present()) return;
    char folder[] = "/tmp/allreduce-bench.XXXXXX";
    if (rank == 0 && mkdtemp(folder) == nullptr) std::abort();
    MPI_Bcast(folder, sizeof(folder), MPI_CHAR, 0, MPI_COMM_WORLD);
    auto device = ::gloo::transport::tcp::CreateDevice("127.0.0.1");
    ::gloo::rendezvous::FileStore store(folder);
    auto context = std::make_shared<::gloo::rendezvous::Context>(rank, size);
    context->connectFullMesh(store, device);
    context_ = context;
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) std::filesystem::remove_all(folder);
  }
  static bool present() { return Environment("ALLREDUCE_BENCH_GLOO", "1") != "0"; }
  void AllReduce(Buffers& b) const {
    ::gloo::AllreduceOptions options(context_);
    options.setInput(b.in.data(), b.in.size());
    options.setOutput(b.gloo.data(), b.gloo.size());
    using Reduce = void (*)(void*, const void*, const void*, size_t);
    options.setReduceFunction(static_cast<Reduce>(&::gloo::sum<float>));
    ::gloo::allreduce(options);
  }

 private:
  std::shared_ptr<::gloo::Context> context_;
};
#else
struct Gloo {
  Gloo(int, int) {}
  static bool present() { return false; }
  void AllReduce(Buffers&) const {}
};
#endif

Status Ours(Communicator& comm, Buffers& b) {
  return comm.AllReduce(b.in.data(), b.ours.data(), b.in.size(), DataType::kFloat32,
                        ReduceOp::kSum);
}

void Theirs(Buffers& b) {
  MPI_Allreduce(b.in.data(), b.theirs.data(), static_cast<int>(b.in.size()), MPI_FLOAT, MPI_SUM,
                MPI_COMM_WORLD);
}

std::string Verify(Communicator& comm, const Gloo& gloo, Buffers& b) {
  Status status = Ours(comm, b);
  if (!status.ok()) return status.ToString();
  Theirs(b);
  if (Gloo::present()) gloo.AllReduce(b);
  int size = comm.size();
  for (size_t i = 0; i < b.in.size(); ++i) {
    double expected = 0;
    for (int r = 0; r < size; ++r) expected += static_cast<float>((i * 7 + r * 13) % 1000) / 8.0f;
    if (std::fabs(b.ours[i] - expected) > 1e-4 * expected || b.ours[i] != b.theirs[i] ||
        (Gloo::present() && b.ours[i] != b.gloo[i])) {
      return "results differ at element " + std::to_string(i);
    }
  }
  return "";
}

// Seconds an operation, by rank 0's clock, from one MPI barrier to the end of the last operation.
template <typename Operation>
double Time(int repeats, const Operation& operation) {
  MPI_Barrier(MPI_COMM_WORLD);
  operation();  // both sides warm: caches, and who waits for whom
  double start = Now();
  for (int i = 0; i < repeats; ++i) operation();
  return (Now() - start) / repeats;
}

// As many as take about 10 ms, agreed among the ranks.
template <typename Operation>
int Repeats(const Operation& operation) {
  int repeats = static_cast<int>(std::clamp(0.01 / Time(3, operation), 2.0, 2000.0));
  MPI_Bcast(&repeats, 1, MPI_INT, 0, MPI_COMM_WORLD);
  return repeats;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Our time divided by the faster peer's, the worst of the sizes.
struct Worst {
  double small = 0, large = 0, any = 0;
  void Count(size_t bytes, double ratio) {
    any = std::max(any, ratio);
    if (bytes <= kSmall) small = std::max(small, ratio);
    if (bytes >= kLarge) large = std::max(large, ratio);
  }
  void Tell(const std::string& of, bool crowded) const {
    if (small > 0) goals::AtMost(of + " up to 4 KB, ours : the faster peer", small, kOfSmall);
    if (large > 0) goals::AtMost(of + " from 256 KB, ours : the faster peer", large, kOfLarge);
    if (crowded) goals::AtMost(of + " at any size, ours : the faster peer", any, kOfCrowded);
  }
};

std::string BenchSize(Communicator& comm, const Gloo& gloo, const char* transport, size_t bytes,
                      Worst& worst) {
  Buffers b;
  b.in.resize(bytes / 4);
  b.ours.resize(b.in.size());
  b.theirs.resize(b.in.size());
  b.gloo.resize(b.in.size());
  for (size_t i = 0; i < b.in.size(); ++i) {
    b.in[i] = static_cast<float>((i * 7 + static_cast<size_t>(comm.rank()) * 13) % 1000) / 8.0f;
  }
  std::string wrong = Verify(comm, gloo, b);
  if (!wrong.empty()) return wrong;
  Status status;
  auto run_theirs = [&] { Theirs(b); };
  auto run_ours = [&] {
    if (status.ok()) status = Ours(comm, b);
  };
  const int repeats_theirs = Repeats(run_theirs);
  auto run_gloo = [&] { gloo.AllReduce(b); };
  const int repeats_ours = Repeats(run_ours);
  const int repeats_gloo = Gloo::present() ? Repeats(run_gloo) : 0;
  std::vector<double> ours, theirs, gloos, ratios;
  for (int round = 0; round < kRounds; ++round) {
    theirs.push_back(Time(repeats_theirs, run_theirs));
    ours.push_back(Time(repeats_ours, run_ours));
    gloos.push_back(Gloo::present() ? Time(repeats_gloo, run_gloo) : theirs.back());
    ratios.push_back(ours.back() / std::min(theirs.back(), gloos.back()));
  }
  if (!status.ok()) return status.ToString();
  if (comm.rank() == 0) {
    std::printf("%5d  %-4s %10zu %12.2f %12.2f %8.2f", comm.size(), transport, bytes,
                Median(ours) * 1e6, Median(theirs) * 1e6, Median(ours) / Median(theirs));
    if (Gloo::present())
      std::printf(" %12.2f %8.2f", Median(gloos) * 1e6, Median(ours) / Median(gloos));
    std::sort(ratios.begin(), ratios.end());
    std::printf("  [%.2f..%.2f]\n", ratios[ratios.size() / 4],
                ratios[ratios.size() - 1 - ratios.size() / 4]);
    std::fflush(stdout);
    worst.Count(bytes, Median(ours) / std::min(Median(theirs), Median(gloos)));
  }
  return "";
}

int RunRank() {
  MPI_Init(nullptr, nullptr);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const Gloo gloo(rank, size);
  const std::string name = Environment("ALLREDUCE_BENCH_TRANSPORT", "shm");
  const std::string bounds = Environment("ALLREDUCE_BENCH_BYTES", "0-67108864");
  const size_t least = std::stoul(bounds), most = std::stoul(bounds.substr(bounds.find('-') + 1));
  {
    NativeBackend backend({name == "tcp" ? TransportChoice::kTcp : TransportChoice::kShm,
                           Environment("LEPTON_COLLECTIVES_ALGORITHM", "")});
    auto comm = JoinNative(backend, rank, size);
    if (!comm.ok()) return Fail("join: " + comm.status().ToString());
    Worst worst;
    for (size_t bytes : {size_t{8}, size_t{64}, size_t{512}, size_t{4} << 10, size_t{32} << 10,
                         size_t{64} << 10, size_t{256} << 10, size_t{1} << 20, size_t{4} << 20,
                         size_t{16} << 20, size_t{64} << 20}) {
      if (bytes < least || bytes > most) continue;
      std::string wrong = BenchSize(**comm, gloo, name.c_str(), bytes, worst);
      if (!wrong.empty()) return Fail(wrong);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const bool crowded = static_cast<unsigned>(size) > std::thread::hardware_concurrency();
    if (rank == 0) worst.Tell(std::to_string(size) + " ranks, " + name, crowded);
  }
  MPI_Finalize();
  return 0;
}

int RunAll(const char* self, std::vector<std::string> ranks) {
  if (ranks.empty()) ranks = {"2", "4"};
  std::printf("%5s  %-4s %10s %12s %12s %8s", "ranks", "ours", "bytes", "ours us", "MPI us",
              "ratio");
  if (Gloo::present()) std::printf(" %12s %8s", "Gloo us", "ratio");
  std::printf("  [middle half]\n");
  std::fflush(stdout);
  for (const std::string& n : ranks) {
    const bool crowded = std::stoul(n) > std::thread::hardware_concurrency();
    for (const std::string transport : {"shm", "tcp"}) {
      if (Environment("ALLREDUCE_BENCH_ONLY", transport.c_str()) != transport) continue;
      const std::string command = "ALLREDUCE_BENCH_TRANSPORT=" + transport +
                                  " mpirun --allow-run-as-root --oversubscribe --bind-to none " +
                                  (crowded ? "--mca mpi_yield_when_idle 1 " : "") +
                                  (transport == "tcp" ? "--mca pml ob1 --mca btl tcp,self " : "") +
                                  "-np " + n + " '" + self + "'";
      if (std::system(command.c_str()) != 0) return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace lepton::collectives

int main(int argc, char** argv) {
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) return lepton::collectives::RunRank();
  return lepton::collectives::RunAll(argv[0], {argv + 1, argv + argc});
}
