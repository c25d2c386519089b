#include "collectives/backends/nccl_backend.h"

#ifdef LEPTON_HAS_NCCL

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "collectives/activity.h"
#include "collectives/backends/mesh_communicator.h"
#include "collectives/transport/member_address.h"
#include "collectives/transport/socket.h"
#include "runtime/base/hash.h"
#include "runtime/base/named_thread.h"

namespace lepton::collectives {
namespace {

// The functions we use, from the shared library.
struct NcclApi {
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommFinalize) finalize = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) recv = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  Status loaded;
};

NcclApi LoadNccl() {
  NcclApi api;
  void* library = nullptr;
  for (const char* name : {"libnccl.so.2", LEPTON_NCCL_LIBRARY}) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
  }
  if (library == nullptr) {
    api.loaded = FailedPrecondition(std::string("cannot load libnccl.so.2: ") + dlerror());
    return api;
  }
  auto find = [&](const char* symbol, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, symbol));
    if (*function == nullptr) {
      api.loaded = FailedPrecondition(std::string("libnccl.so.2 is too old: it has no ") + symbol);
    }
  };
  find("ncclGetUniqueId", &api.get_unique_id);
  find("ncclCommInitRankConfig", &api.init);
  find("ncclCommGetAsyncError", &api.async_error);
  find("ncclCommAbort", &api.abort);
  find("ncclCommDestroy", &api.destroy);
  find("ncclCommFinalize", &api.finalize);
  find("ncclSend", &api.send);
  find("ncclRecv", &api.recv);
  find("ncclGroupStart", &api.group_start);
  find("ncclGroupEnd", &api.group_end);
  find("ncclGetErrorString", &api.error_string);
  find("ncclGetLastError", &api.last_error);
  return api;
}

const NcclApi& Nccl() {
  static const NcclApi* api = new NcclApi(LoadNccl());
  return *api;
}

Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  return Aborted(std::string(what) + ": " + cudaGetErrorString(error));
}

// kInProgress is no error: a non-blocking communicator goes on in the background. The code alone
// says "invalid usage" and the like; the cause is in the text of the process's last error.
Status NcclStatus(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return {};
  std::string message = std::string(what) + ": " + Nccl().error_string(result);
  const char* const cause = Nccl().last_error(nullptr);
  if (cause != nullptr && *cause != '\0') message += std::string(": ") + cause;
  return Aborted(message);
}

// A thread's device while it works for a mesh; then the one that it had, for its other work.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    status_ = CudaStatus(cudaGetDevice(&before_), "cudaGetDevice");
    if (status_.ok()) status_ = CudaStatus(cudaSetDevice(device), "cudaSetDevice");
    changed_ = status_.ok() && before_ != device;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const Status& status() const { return status_; }

 private:
  int before_ = 0;
  bool changed_ = false;
  Status status_;
};

// How long what a peer sent before it left may take to arrive.
constexpr Duration kLastBytes = std::chrono::seconds(1);
// How long NCCL may take to set a communicator up, however soon ranks are to meet: it loads its
// kernels at first. Who dies meanwhile ends the wait at once.
constexpr Duration kSetUp = std::chrono::seconds(10);
// How long NCCL may take to flush a communicator that is no longer used.
constexpr Duration kFlush = std::chrono::seconds(5);
// How long the process's end waits for communicators that are ending.
constexpr Duration kEndPatience = std::chrono::seconds(2);

size_t RoundUp(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// A communicator, and what its transfers use.
struct Belongings {
  int device = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  char* host = nullptr;  // pinned, so that copies never block the host
  char* gpu = nullptr;
  size_t capacity = 0;
};

// Communicators that are over, each ending on a thread of its own: NCCL's calls wait for the GPU
// and for the peers, and have been seen to hang. The next group is made meanwhile.
class Endings {
 public:
  enum class How { kFlushed, kAborted };
  // This process's. Its first use is behind the loading of NCCL, so that the wait at the process's
  // end is before NCCL's own end.
  static Endings& Of() {
    static Endings* const endings = [] {
      std::atexit([] { Of().Await(kEndPatience); });
      return new Endings;
    }();
    return *endings;
  }

  void Begin(const Belongings& old, How how) {
    {
      std::lock_guard lock(mutex_);
      ++running_;
    }
    NamedThread("nccl-end", [this, old, how] {
      End(old, how);
      std::lock_guard lock(mutex_);
      --running_;
      changed_.notify_all();
    }).detach();
  }
  int running() const {
    std::lock_guard lock(mutex_);
    return running_;
  }
  void Await(Duration at_most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, at_most, [this] { return running_ == 0; });
  }

 private:
  static void End(const Belongings& old, How how) {
    cudaSetDevice(old.device);
    if (old.comm != nullptr) {
      if (how == How::kFlushed && Flush(old.comm)) {
        Nccl().destroy(old.comm);
      } else {
        Nccl().abort(old.comm);
      }
    }
    cudaFree(old.gpu);
    cudaFreeHost(old.host);
    if (old.stream != nullptr) cudaStreamDestroy(old.stream);
  }
  // Until what was sent has left this host.
  static bool Flush(ncclComm_t comm) {
    const Deadline deadline = Deadline::In(kFlush);
    ncclResult_t state = Nccl().finalize(comm);
    while ((state == ncclSuccess || state == ncclInProgress) && !deadline.Expired()) {
      if (Nccl().async_error(comm, &state) != ncclSuccess) return false;
      if (state == ncclSuccess) return true;
      sched_yield();
    }
    return false;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;
};

// On the device that it was made for, whatever thread calls.
class NcclMesh final : public Mesh {
 public:
  NcclMesh(int device, std::shared_ptr<Failure> failure)
      : own_{.device = device}, failure_(std::move(failure)) {}
  ~NcclMesh() override;

  Status Connect(const ncclUniqueId& id, int rank, int size, Deadline deadline);
  Status Run(std::span<Transfer> transfers, Deadline deadline) override;

 private:
  Status Reserve(size_t bytes);
  Status Enqueue(std::span<Transfer> transfers, Deadline deadline);
  // Until NCCL has done what it was asked in the background.
  Status AwaitComm(std::span<const Transfer> transfers, Deadline deadline);
  Status AwaitStream(std::span<const Transfer> transfers, Deadline deadline);
  // What ends every wait but success.
  Status CheckFailure(std::span<const Transfer> transfers, Deadline deadline);
  Status CheckLeft(std::span<const Transfer> transfers);
  // Returns at once. Nothing can be sent any more.
  void Leave(Endings::How how);

  Belongings own_;
  std::shared_ptr<Failure> failure_;
  std::map<int, Deadline> last_bytes_;  // of peers that have left
};

NcclMesh::~NcclMesh() {
  Leave(failure_->raised() ? Endings::How::kAborted : Endings::How::kFlushed);
}

void NcclMesh::Leave(Endings::How how) {
  if (own_.comm == nullptr && own_.stream == nullptr) return;
  Endings::Of().Begin(std::exchange(own_, Belongings{.device = own_.device}), how);
}

Status NcclMesh::Connect(const ncclUniqueId& id, int rank, int size, Deadline deadline) {
  const OnDevice on_device(own_.device);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&own_.stream, cudaStreamNonBlocking),
                                    "cudaStreamCreate"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  LEPTON_RETURN_IF_ERROR(
      NcclStatus(Nccl().init(&own_.comm, size, id, rank, &config), "ncclCommInitRankConfig"));
  Status made = AwaitComm({}, Deadline(std::max(deadline.at(), RealClock().Now() + kSetUp)));
  if (const int earlier = Endings::Of().running(); !made.ok() && earlier > 0) {
    made = made.WithContext("while " + std::to_string(earlier) +
                            " earlier communicators have not ended");
  }
  return made.WithContext("ncclCommInitRankConfig");
}

Status NcclMesh::Reserve(size_t bytes) {
  if (bytes <= own_.capacity) return {};
  cudaFree(own_.gpu);
  cudaFreeHost(own_.host);
  own_.gpu = own_.host = nullptr;
  own_.capacity = 0;
  void* gpu = nullptr;
  void* host = nullptr;
  LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&gpu, bytes), "cudaMalloc"));
  own_.gpu = static_cast<char*>(gpu);
  LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&host, bytes), "cudaMallocHost"));
  own_.host = static_cast<char*>(host);
  own_.capacity = bytes;
  return {};
}

Status NcclMesh::CheckLeft(std::span<const Transfer> transfers) {
  for (const Transfer& t : transfers) {
    if (t.bytes == 0 || !failure_->HasLeft(t.peer)) continue;
    const auto [until, first] = last_bytes_.try_emplace(t.peer, Deadline::In(kLastBytes));
    if (first || !until->second.Expired()) continue;
    return Aborted("rank " + std::to_string(t.peer) + " is gone: it left the group");
  }
  return {};
}

Status NcclMesh::CheckFailure(std::span<const Transfer> transfers, Deadline deadline) {
  Status status = failure_->raised() ? failure_->cause() : CheckLeft(transfers);
  if (status.ok() && deadline.Expired()) {
    const std::string who = Stragglers(transfers);
    status = DeadlineExceeded("no answer in time from " + (who.empty() ? "the group" : who));
  }
  if (!status.ok()) Leave(Endings::How::kAborted);
  return status;
}

Status NcclMesh::AwaitComm(std::span<const Transfer> transfers, Deadline deadline) {
  while (true) {
    ncclResult_t state = ncclSuccess;
    LEPTON_RETURN_IF_ERROR(
        NcclStatus(Nccl().async_error(own_.comm, &state), "ncclCommGetAsyncError"));
    if (state == ncclSuccess) return {};
    LEPTON_RETURN_IF_ERROR(NcclStatus(state, "NCCL"));
    LEPTON_RETURN_IF_ERROR(CheckFailure(transfers, deadline));
    sched_yield();
  }
}

Status NcclMesh::AwaitStream(std::span<const Transfer> transfers, Deadline deadline) {
  while (true) {
    cudaError_t state = cudaStreamQuery(own_.stream);
    if (state == cudaSuccess) return {};
    if (state != cudaErrorNotReady) return CudaStatus(state, "transfer");
    ncclResult_t asynchronous = ncclSuccess;
    LEPTON_RETURN_IF_ERROR(
        NcclStatus(Nccl().async_error(own_.comm, &asynchronous), "ncclCommGetAsyncError"));
    Status broken = NcclStatus(asynchronous, "NCCL");
    if (!broken.ok()) {
      Leave(Endings::How::kAborted);
      return broken;
    }
    LEPTON_RETURN_IF_ERROR(CheckFailure(transfers, deadline));
    sched_yield();
  }
}

Status NcclMesh::Enqueue(std::span<Transfer> transfers, Deadline deadline) {
  size_t at = 0;
  for (const Transfer& t : transfers) {
    if (t.send && t.bytes > 0) {
      std::memcpy(own_.host + at, t.data, t.bytes);
      LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(own_.gpu + at, own_.host + at, t.bytes,
                                                        cudaMemcpyHostToDevice, own_.stream),
                                        "copy to the GPU"));
    }
    at += RoundUp(t.bytes);
  }
  LEPTON_RETURN_IF_ERROR(NcclStatus(Nccl().group_start(), "ncclGroupStart"));
  at = 0;
  Status status;
  for (const Transfer& t : transfers) {
    if (t.bytes > 0 && status.ok()) {
      ncclResult_t result =
          t.send ? Nccl().send(own_.gpu + at, t.bytes, ncclUint8, t.peer, own_.comm, own_.stream)
                 : Nccl().recv(own_.gpu + at, t.bytes, ncclUint8, t.peer, own_.comm, own_.stream);
      status = NcclStatus(result, t.send ? "ncclSend" : "ncclRecv");
    }
    at += RoundUp(t.bytes);
  }
  Status ended = NcclStatus(Nccl().group_end(), "ncclGroupEnd");
  LEPTON_RETURN_IF_ERROR(status);
  LEPTON_RETURN_IF_ERROR(ended);
  // The kernels are on the stream only when the group has been launched.
  LEPTON_RETURN_IF_ERROR(AwaitComm(transfers, deadline));
  at = 0;
  for (const Transfer& t : transfers) {
    if (!t.send && t.bytes > 0) {
      LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(own_.host + at, own_.gpu + at, t.bytes,
                                                        cudaMemcpyDeviceToHost, own_.stream),
                                        "copy from the GPU"));
    }
    at += RoundUp(t.bytes);
  }
  return {};
}

Status NcclMesh::Run(std::span<Transfer> transfers, Deadline deadline) {
  if (own_.comm == nullptr) return Aborted("the NCCL communicator was aborted");
  size_t total = 0;
  for (const Transfer& t : transfers) total += RoundUp(t.bytes);
  if (total == 0) return {};
  const OnDevice on_device(own_.device);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(Reserve(total));
  LEPTON_RETURN_IF_ERROR(Enqueue(transfers, deadline));
  Activity::Moved();
  LEPTON_RETURN_IF_ERROR(AwaitStream(transfers, deadline));
  Activity::Moved();
  size_t at = 0;
  for (Transfer& t : transfers) {
    if (!t.send) std::memcpy(t.data, own_.host + at, t.bytes);
    t.done = t.bytes;
    at += RoundUp(t.bytes);
  }
  return {};
}

Result<int> DeviceCount() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return FailedPrecondition(std::string("no usable GPU: ") + cudaGetErrorString(error));
  }
  if (count == 0) return FailedPrecondition("no usable GPU: none is visible");
  return count;
}

// The only visible GPU's own name; empty where there are several, of which each group's ranks
// choose.
Result<std::string> OnlyGpu() {
  LEPTON_ASSIGN_OR_RETURN(const int count, DeviceCount());
  if (count > 1) return std::string();
  cudaDeviceProp properties;
  LEPTON_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties"));
  return "GPU-" + ToHex({properties.uuid.bytes, sizeof(properties.uuid.bytes)});
}

std::string GpuOf(const std::string& address) {
  const auto member = MemberAddress::Decode(address, "nccl");
  return member.ok() ? member->place : "";
}

constexpr char kOneGpu[] = "both are on the same GPU, and NCCL needs one for each rank";

// NCCL refuses two ranks on one GPU, but only once all have met. Here every rank finds the same,
// before anybody is dialled.
Status CheckOneGpuEach(const GroupSpec& group, const Options& options) {
  std::vector<std::string> gpus;
  for (const std::string& member : group.members) gpus.push_back(GpuOf(member));
  std::string shared;
  for (int b = 0; b < static_cast<int>(gpus.size()); ++b) {
    for (int a = 0; a < b; ++a) {
      if (gpus[a].empty() || gpus[a] != gpus[b]) continue;
      if (shared.empty()) {
        shared = "rank " + std::to_string(a) + " and rank " + std::to_string(b) + ": " + kOneGpu;
      }
      if (options.unreachable == nullptr) continue;
      if (group.rank == a) options.unreachable(b, kOneGpu);
      if (group.rank == b) options.unreachable(a, kOneGpu);
    }
  }
  return shared.empty() ? Status() : FailedPrecondition(shared);
}

Result<int> ChooseDevice(const ControlPlane& control, const GroupSpec& group) {
  LEPTON_ASSIGN_OR_RETURN(int count, DeviceCount());
  if (count == 1) return 0;
  int index = 0;
  for (int r = 0; r < group.rank; ++r) {
    index += control.members[r].host_identity == control.members[group.rank].host_identity;
  }
  if (index < count) return index;
  return FailedPrecondition("rank " + std::to_string(group.rank) + " is number " +
                            std::to_string(index) + " on a host with " + std::to_string(count) +
                            " GPUs: NCCL needs one for each rank");
}

// Rank 0 makes it, the control connections carry it.
Result<ncclUniqueId> ShareUniqueId(const ControlPlane& control, const GroupSpec& group,
                                   Deadline deadline) {
  ncclUniqueId id{};
  if (group.rank != 0) {
    LEPTON_RETURN_IF_ERROR(ReceiveAll(control.joined.control[0].get(), &id, sizeof(id), deadline));
    return id;
  }
  LEPTON_RETURN_IF_ERROR(NcclStatus(Nccl().get_unique_id(&id), "ncclGetUniqueId"));
  for (int peer = 1; peer < group.size; ++peer) {
    LEPTON_RETURN_IF_ERROR(SendAll(control.joined.control[peer].get(), &id, sizeof(id), deadline));
  }
  return id;
}

}  // namespace

Status NcclBackend::Available() const {
  LEPTON_RETURN_IF_ERROR(DeviceCount().status());
  return Nccl().loaded;
}

Result<std::unique_ptr<Endpoint>> NcclBackend::Listen(const std::string& bind_address) const {
  LEPTON_RETURN_IF_ERROR(Available());
  LEPTON_ASSIGN_OR_RETURN(std::string gpu, OnlyGpu());
  return ListenForPeers(name(), std::move(gpu), bind_address);
}

std::string NcclBackend::Conflict(const std::string& address, const std::string& other) const {
  const std::string gpu = GpuOf(address);
  return gpu.empty() || gpu != GpuOf(other) ? "" : kOneGpu;
}

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                        const GroupSpec& group,
                                                        const Options& options,
                                                        Deadline deadline) const {
  LEPTON_RETURN_IF_ERROR(Available());
  LEPTON_RETURN_IF_ERROR(CheckOneGpuEach(group, options));
  LEPTON_ASSIGN_OR_RETURN(
      ControlPlane control,
      MeetPeers(std::move(endpoint), group, name(), TransportChoice::kNone, options, deadline));
  if (group.size == 1) {
    LEPTON_ASSIGN_OR_RETURN(auto alone,
                            MeshCommunicator::Make(name(), group, options, control, nullptr));
    return std::unique_ptr<Communicator>(std::move(alone));
  }
  LEPTON_ASSIGN_OR_RETURN(int device, ChooseDevice(control, group));
  LEPTON_ASSIGN_OR_RETURN(ncclUniqueId id, ShareUniqueId(control, group, deadline));
  auto owned = std::make_unique<NcclMesh>(device, control.failure);
  NcclMesh* mesh = owned.get();
  // Watched before it is connected, so that nobody waits in NCCL for a rank that has failed to.
  LEPTON_ASSIGN_OR_RETURN(
      auto communicator, MeshCommunicator::Make(name(), group, options, control, std::move(owned)));
  Status connected = mesh->Connect(id, group.rank, group.size, deadline);
  if (!connected.ok()) {
    communicator->Abort(connected);
    return connected;
  }
  return std::unique_ptr<Communicator>(std::move(communicator));
}

}  // namespace lepton::collectives

#else

namespace lepton::collectives {
namespace {

Status NcclNotBuiltIn() {
  return FailedPrecondition("this lepton was built without NCCL (CMake: LEPTON_WITH_NCCL)");
}

}  // namespace

Status NcclBackend::Available() const {
  return NcclNotBuiltIn();
}

Result<std::unique_ptr<Endpoint>> NcclBackend::Listen(const std::string&) const {
  return NcclNotBuiltIn();
}

std::string NcclBackend::Conflict(const std::string&, const std::string&) const {
  return {};
}

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint>, const GroupSpec&,
                                                        const Options&, Deadline) const {
  return NcclNotBuiltIn();
}

}  // namespace lepton::collectives

#endif
