// Built as libnccl.so.2: NCCL between threads and processes of one host, over the fake CUDA run
// time (tests/runtime/cuda/fake_cudart.h), whose "device memory" it copies. A communicator is a
// folder: a file a rank, and one a message. It holds its caller to what the header says of devices,
// of groups and of communicators that do not block. Threads: as NCCL.
#include "tests/collectives/fake_nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using lepton::collectives::FakeNccl;
using std::filesystem::path;

std::mutex mutex;  // of all there is
const char* last_error = "";
int ids = 0;

// Of all communicators: the test's, for ranks that are processes, or this process's.
struct Root {
  path folder;
  bool own = false;
  Root() {
    const char* const given = std::getenv("LEPTON_FAKE_NCCL_FOLDER");
    own = given == nullptr;
    folder = own ? path("/dev/shm") / ("lepton-fake-nccl-" + std::to_string(getpid())) : given;
  }
  ~Root() {
    std::error_code ignored;
    if (own) std::filesystem::remove_all(folder, ignored);
  }
};
const Root root;

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

// Whole or not at all.
void Write(const path& file, const std::string& bytes) {
  const path part = file.string() + ".part";
  std::ofstream(part, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
  std::filesystem::rename(part, file);
}

std::string Read(const path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

struct ncclComm {
  const path folder;
  const int rank, size, device;
  bool met = false, duplicate = false, finalized = false;
  std::map<int, int> sent, received;  // by peer
  std::vector<Operation> receiving;
  ncclComm* child = nullptr;  // being made, for `child_to`
  ncclComm_t* child_to = nullptr;

  ncclComm(path in, int as, int of, int on)
      : folder(std::move(in)), rank(as), size(of), device(on) {
    ++TheFakeNccl()->alive;
  }
  ~ncclComm() {
    delete child;
    --TheFakeNccl()->alive;
  }
  path RankFile(int of) const { return folder / ("rank" + std::to_string(of)); }
  path Letter(int from, int to, int number) const {
    return folder /
           (std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(number));
  }
  void Enter() {
    std::filesystem::create_directories(folder);
    Write(RankFile(rank), std::to_string(getpid()) + "." + std::to_string(device));
  }
  bool HasMet() {
    if (met) return true;
    std::set<std::string> devices;
    for (int one = 0; one < size; ++one) {
      if (access(RankFile(one).c_str(), F_OK) != 0) return false;
      devices.insert(Read(RankFile(one)));
    }
    duplicate = static_cast<int>(devices.size()) < size;
    return met = true;
  }
  // Whatever has arrived, in order.
  void Receive() {
    std::vector<Operation> left;
    std::set<int> waits;
    for (const Operation& one : receiving) {
      const path letter = Letter(one.peer, rank, received[one.peer]);
      if (waits.contains(one.peer) || access(letter.c_str(), F_OK) != 0) {
        waits.insert(one.peer);
        left.push_back(one);
        continue;
      }
      const std::string bytes = Read(letter);
      std::memcpy(one.data, bytes.data(), one.bytes);
      std::filesystem::remove(letter);
      ++received[one.peer];
    }
    receiving = std::move(left);
  }
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

}  // namespace

extern "C" {

FakeNccl* TheFakeNccl() {
  static FakeNccl fake;
  return &fake;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard lock(mutex);
  *id = {};
  const std::string name = std::to_string(getpid()) + "-" + std::to_string(++ids);
  name.copy(id->internal, sizeof(id->internal) - 1);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  *comm = new ncclComm(root.folder / id.internal, rank, size, CurrentDevice());
  (*comm)->Enter();
  ++TheFakeNccl()->inits;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  std::lock_guard lock(mutex);
  if (comm->child != nullptr) {
    *state = comm->child->HasMet() ? ncclSuccess : ncclInProgress;
    if (*state == ncclSuccess) *comm->child_to = std::exchange(comm->child, nullptr);
  } else if (!comm->HasMet() || (comm->finalized && TheFakeNccl()->flushes)) {
    *state = ncclInProgress;
  } else if (comm->duplicate) {
    last_error = "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000";
    *state = ncclInvalidUsage;
  } else {
    comm->Receive();
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
      Write(one.comm->Letter(one.comm->rank, one.peer, one.comm->sent[one.peer]++),
            {one.data, one.bytes});
    } else {
      one.comm->receiving.push_back(one);
    }
  }
  group.clear();
  return ncclInProgress;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = TheFakeNccl()->version;
  return ncclSuccess;
}

#ifndef FAKE_NCCL_WITHOUT_SHRINK
// The ranks are those that are left, in their order; the new communicator is there when the old one
// is done with it.
ncclResult_t ncclCommShrink(ncclComm_t comm, int* excluded, int count, ncclComm_t* made,
                            ncclConfig_t* config, int flags) {
  while (TheFakeNccl()->shrink_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (TheFakeNccl()->shrink_fails.exchange(false)) return ncclInternalError;
  if (config->blocking != 0 || flags != NCCL_SHRINK_ABORT || count < 1) return ncclInvalidArgument;
  if (CurrentDevice() != comm->device) return ncclInvalidUsage;
  std::lock_guard lock(mutex);
  comm->receiving.clear();
  int rank = comm->rank;
  std::string name = comm->folder.string() + "-without";
  for (int i = 0; i < count; ++i) {
    if (excluded[i] == comm->rank || excluded[i] < 0 || excluded[i] >= comm->size) {
      return ncclInvalidArgument;
    }
    rank -= excluded[i] < comm->rank;
    name += "-" + std::to_string(excluded[i]);
  }
  comm->child = new ncclComm(name, rank, comm->size - count, comm->device);
  comm->child->Enter();
  comm->child_to = made;
  ++TheFakeNccl()->shrinks;
  return ncclInProgress;
}
#endif

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  comm->finalized = true;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  while (TheFakeNccl()->hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ++TheFakeNccl()->aborts;
  delete comm;  // of those that are alive the next test waits for
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
