// One rank of the conformance suite on the mpi back-end; mpirun starts it N times:
//   mpirun -np N mpi_conformance
// Addresses are exchanged with MPI itself, once, before any group exists.
#include <mpi.h>

#include <cstdio>
#include <cstring>

#include "collectives/communicator.h"
#include "tests/collectives/conformance.h"

namespace lepton::collectives {
namespace {

constexpr size_t kMaxAddress = 512;

int Fail(int rank, const std::string& what) {
  std::fprintf(stderr, "rank %d: %s\n", rank, what.c_str());
  MPI_Abort(MPI_COMM_WORLD, 1);
  return 1;
}

std::vector<std::string> ExchangeAddresses(const std::string& own, int size) {
  char mine[kMaxAddress] = {};
  std::memcpy(mine, own.data(), std::min(own.size(), kMaxAddress - 1));
  std::vector<char> all(kMaxAddress * static_cast<size_t>(size));
  MPI_Allgather(mine, kMaxAddress, MPI_CHAR, all.data(), kMaxAddress, MPI_CHAR, MPI_COMM_WORLD);
  std::vector<std::string> members;
  for (int r = 0; r < size; ++r) members.emplace_back(&all[static_cast<size_t>(r) * kMaxAddress]);
  return members;
}

// A call that no peer answers must end by its deadline, on every rank, with the group broken.
std::string CheckDeadline(const Backend& backend, int rank, int size) {
  auto endpoint = backend.Listen("127.0.0.1");
  if (!endpoint.ok()) return endpoint.status().ToString();
  auto members = ExchangeAddresses((*endpoint)->address(), size);
  Options options;
  options.timeout = std::chrono::milliseconds(200);
  auto comm = backend.Join(std::move(*endpoint), {rank, size, 4, "0123456789abcdef", members},
                           options, Deadline::In(std::chrono::seconds(20)));
  if (!comm.ok()) return comm.status().ToString();
  static float data[4];  // MPI may still write here
  Status status = (*comm)->Recv(data, 4, DataType::kFloat32, (rank + 1) % size);
  bool expected =
      status.code() == StatusCode::kDeadlineExceeded || status.code() == StatusCode::kAborted;
  if (!expected) return "an unanswered receive gave " + status.ToString();
  return (*comm)->Barrier() == status ? "" : "the group outlived its failure";
}

int Main() {
  auto backend = FindBackend("mpi");
  Status available = (*backend)->Available();
  if (!available.ok()) {
    std::printf("skipped: %s\n", available.ToString().c_str());
    return 77;
  }
  auto endpoint = (*backend)->Listen("127.0.0.1");
  if (!endpoint.ok()) {
    std::fprintf(stderr, "listen: %s\n", endpoint.status().ToString().c_str());
    return 1;
  }
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  auto members = ExchangeAddresses((*endpoint)->address(), size);
  {
    auto comm = (*backend)->Join(std::move(*endpoint), {rank, size, 3, "0123456789abcdef", members},
                                 {}, Deadline::In(std::chrono::seconds(20)));
    if (!comm.ok()) return Fail(rank, "join: " + comm.status().ToString());
    if ((*comm)->backend() != "mpi") return Fail(rank, "not the mpi back-end");
    std::string wrong = RunConformance(**comm);
    if (!wrong.empty()) return Fail(rank, wrong);
  }
  if (size > 1) {
    std::string wrong = CheckDeadline(**backend, rank, size);
    if (!wrong.empty()) return Fail(rank, wrong);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();  // the back-end does not, once a group of its own has failed
  }
  if (rank == 0) std::printf("conformance of the mpi back-end with %d ranks: passed\n", size);
  return 0;
}

}  // namespace
}  // namespace lepton::collectives

int main() {
  return lepton::collectives::Main();
}
