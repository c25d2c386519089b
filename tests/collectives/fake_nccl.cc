// Built as libnccl.so.2: NCCL between the threads of one process, over the fake CUDA run time
// (tests/runtime/cuda/fake_cudart.h), whose "device memory" it copies. It holds its caller to what
// the header says of devices, of groups and of communicators that do not block. Threads: as NCCL.
#include "tests/collectives/fake_nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace {

std::mutex mutex;  // of all there is
const char* last_error = "";

// The ranks of one id.
struct Clique {
  int size = 0;
  std::map<int, int> devices;                                            // by rank
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> letters;  // by sender and receiver
};
std::map<int, std::shared_ptr<Clique>> cliques;
int ids = 0;

struct Operation {
  ncclComm_t comm;
  bool send;
  char* data;
  size_t bytes;
  int peer;
};
thread_local std::vector<Operation> group;

int CurrentDevice() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank, device;
  std::vector<Operation> receiving;
};

namespace {

ncclResult_t Queue(const Operation& operation) {
  if (CurrentDevice() != operation.comm->device) {
    std::lock_guard lock(mutex);
    last_error = "called with another device than the communicator's";
    return ncclInvalidUsage;
  }
  group.push_back(operation);
  return ncclSuccess;
}

// Whatever has arrived, in order.
void Receive(ncclComm& comm) {
  std::vector<Operation> left;
  for (const Operation& one : comm.receiving) {
    auto& letters = comm.clique->letters[{one.peer, comm.rank}];
    if (letters.empty()) {
      left.push_back(one);
      continue;
    }
    std::memcpy(one.data, letters.front().data(), one.bytes);
    letters.pop_front();
  }
  comm.receiving = std::move(left);
}

bool HasDuplicate(const Clique& clique) {
  std::map<int, int> ranks;
  for (const auto& [rank, device] : clique.devices) {
    if (++ranks[device] > 1) return true;
  }
  return false;
}

}  // namespace

extern "C" {

lepton::collectives::FakeNccl* TheFakeNccl() {
  static lepton::collectives::FakeNccl fake;
  return &fake;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard lock(mutex);
  *id = {};
  ++ids;
  std::memcpy(id->internal, &ids, sizeof(ids));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  int number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  std::lock_guard lock(mutex);
  auto& clique = cliques[number];
  if (clique == nullptr) clique = std::make_shared<Clique>();
  clique->size = size;
  clique->devices[rank] = CurrentDevice();
  *comm = new ncclComm{clique, rank, CurrentDevice(), {}};
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  std::lock_guard lock(mutex);
  if (static_cast<int>(comm->clique->devices.size()) < comm->clique->size) {
    *state = ncclInProgress;
  } else if (HasDuplicate(*comm->clique)) {
    last_error = "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000";
    *state = ncclInvalidUsage;
  } else {
    Receive(*comm);
    *state = comm->receiving.empty() ? ncclSuccess : ncclInProgress;
  }
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t) {
  return Queue({comm, true, const_cast<char*>(static_cast<const char*>(data)), count, peer});
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t) {
  return Queue({comm, false, static_cast<char*>(data), count, peer});
}

ncclResult_t ncclGroupStart() {
  group.clear();
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  std::lock_guard lock(mutex);
  for (const Operation& one : group) {
    if (one.send) {
      one.comm->clique->letters[{one.comm->rank, one.peer}].emplace_back(one.data,
                                                                         one.data + one.bytes);
    } else {
      one.comm->receiving.push_back(one);
    }
  }
  group.clear();
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t) {
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  while (TheFakeNccl()->hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  delete comm;
  ++TheFakeNccl()->aborts;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclInvalidUsage ? "invalid usage (run with NCCL_DEBUG=WARN for details)"
                                    : "fake error";
}
const char* ncclGetLastError(ncclComm_t) {
  std::lock_guard lock(mutex);
  return last_error;
}

}  // extern "C"
