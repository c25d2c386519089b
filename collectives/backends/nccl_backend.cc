#include "collectives/backends/nccl_backend.h"

#ifdef LEPTON_HAS_NCCL

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <map>

#include "collectives/activity.h"
#include "collectives/backends/mesh_communicator.h"
#include "collectives/transport/socket.h"
#include "runtime/base/logging.h"
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
// How long the end of a communicator waits for the abort of NCCL's.
constexpr Duration kAbortPatience = std::chrono::seconds(2);

size_t RoundUp(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// A communicator, a stream and a pair of staging buffers, on `device` whatever thread calls.
class NcclMesh final : public Mesh {
 public:
  NcclMesh(int device, std::shared_ptr<Failure> failure)
      : device_(device), failure_(std::move(failure)) {}
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
  // Returns at once. NCCL's call waits for the GPU and for the peers, and has been seen to hang:
  // it has a thread of its own, which the destructor waits for, a while.
  void AbortComm();

  int device_;
  std::shared_ptr<Failure> failure_;
  ncclComm_t comm_ = nullptr;
  std::future<void> aborted_;           // valid once it is
  std::map<int, Deadline> last_bytes_;  // of peers that have left
  cudaStream_t stream_ = nullptr;
  char* host_ = nullptr;  // pinned, so that copies never block the host
  char* gpu_ = nullptr;
  size_t capacity_ = 0;
};

NcclMesh::~NcclMesh() {
  const OnDevice on_device(device_);
  if (comm_ != nullptr && failure_->raised()) AbortComm();
  if (comm_ != nullptr) {
    Deadline deadline = Deadline::In(std::chrono::seconds(5));
    bool clean =
        NcclStatus(Nccl().finalize(comm_), "ncclCommFinalize").ok() && AwaitComm({}, deadline).ok();
    if (clean) Nccl().destroy(comm_);
    if (!clean) AbortComm();
  }
  if (aborted_.valid() && aborted_.wait_for(kAbortPatience) != std::future_status::ready) {
    LOG(ERROR) << "ncclCommAbort does not return; what it may still use on GPU " << device_
               << " stays with it";
    return;
  }
  cudaFree(gpu_);
  cudaFreeHost(host_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void NcclMesh::AbortComm() {
  if (comm_ == nullptr) return;
  std::promise<void> done;
  aborted_ = done.get_future();
  NamedThread("nccl-abort", [device = device_, comm = comm_, done = std::move(done)]() mutable {
    cudaSetDevice(device);
    Nccl().abort(comm);
    done.set_value();
  }).detach();
  comm_ = nullptr;
}

Status NcclMesh::Connect(const ncclUniqueId& id, int rank, int size, Deadline deadline) {
  const OnDevice on_device(device_);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  LEPTON_RETURN_IF_ERROR(
      NcclStatus(Nccl().init(&comm_, size, id, rank, &config), "ncclCommInitRankConfig"));
  return AwaitComm({}, deadline).WithContext("ncclCommInitRankConfig");
}

Status NcclMesh::Reserve(size_t bytes) {
  if (bytes <= capacity_) return {};
  cudaFree(gpu_);
  cudaFreeHost(host_);
  gpu_ = host_ = nullptr;
  capacity_ = 0;
  void* gpu = nullptr;
  void* host = nullptr;
  LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&gpu, bytes), "cudaMalloc"));
  gpu_ = static_cast<char*>(gpu);
  LEPTON_RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&host, bytes), "cudaMallocHost"));
  host_ = static_cast<char*>(host);
  capacity_ = bytes;
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
  if (!status.ok()) AbortComm();
  return status;
}

Status NcclMesh::AwaitComm(std::span<const Transfer> transfers, Deadline deadline) {
  while (true) {
    ncclResult_t state = ncclSuccess;
    LEPTON_RETURN_IF_ERROR(NcclStatus(Nccl().async_error(comm_, &state), "ncclCommGetAsyncError"));
    if (state == ncclSuccess) return {};
    LEPTON_RETURN_IF_ERROR(NcclStatus(state, "NCCL"));
    LEPTON_RETURN_IF_ERROR(CheckFailure(transfers, deadline));
    sched_yield();
  }
}

Status NcclMesh::AwaitStream(std::span<const Transfer> transfers, Deadline deadline) {
  while (true) {
    cudaError_t state = cudaStreamQuery(stream_);
    if (state == cudaSuccess) return {};
    if (state != cudaErrorNotReady) return CudaStatus(state, "transfer");
    ncclResult_t asynchronous = ncclSuccess;
    LEPTON_RETURN_IF_ERROR(
        NcclStatus(Nccl().async_error(comm_, &asynchronous), "ncclCommGetAsyncError"));
    Status broken = NcclStatus(asynchronous, "NCCL");
    if (!broken.ok()) {
      AbortComm();
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
      std::memcpy(host_ + at, t.data, t.bytes);
      LEPTON_RETURN_IF_ERROR(CudaStatus(
          cudaMemcpyAsync(gpu_ + at, host_ + at, t.bytes, cudaMemcpyHostToDevice, stream_),
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
          t.send ? Nccl().send(gpu_ + at, t.bytes, ncclUint8, t.peer, comm_, stream_)
                 : Nccl().recv(gpu_ + at, t.bytes, ncclUint8, t.peer, comm_, stream_);
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
      LEPTON_RETURN_IF_ERROR(CudaStatus(
          cudaMemcpyAsync(host_ + at, gpu_ + at, t.bytes, cudaMemcpyDeviceToHost, stream_),
          "copy from the GPU"));
    }
    at += RoundUp(t.bytes);
  }
  return {};
}

Status NcclMesh::Run(std::span<Transfer> transfers, Deadline deadline) {
  if (comm_ == nullptr) return Aborted("the NCCL communicator was aborted");
  size_t total = 0;
  for (const Transfer& t : transfers) total += RoundUp(t.bytes);
  if (total == 0) return {};
  const OnDevice on_device(device_);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(Reserve(total));
  LEPTON_RETURN_IF_ERROR(Enqueue(transfers, deadline));
  Activity::Moved();
  LEPTON_RETURN_IF_ERROR(AwaitStream(transfers, deadline));
  Activity::Moved();
  size_t at = 0;
  for (Transfer& t : transfers) {
    if (!t.send) std::memcpy(t.data, host_ + at, t.bytes);
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
  return ListenForPeers(name(), "", bind_address);
}

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                        const GroupSpec& group,
                                                        const Options& options,
                                                        Deadline deadline) const {
  LEPTON_RETURN_IF_ERROR(Available());
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

Result<std::unique_ptr<Communicator>> NcclBackend::Join(std::unique_ptr<Endpoint>, const GroupSpec&,
                                                        const Options&, Deadline) const {
  return NcclNotBuiltIn();
}

}  // namespace lepton::collectives

#endif
