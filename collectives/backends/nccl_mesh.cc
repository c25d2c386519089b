#include "collectives/backends/nccl_mesh.h"

#ifdef LEPTON_HAS_NCCL

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "collectives/activity.h"
#include "runtime/base/hash.h"

namespace lepton::collectives {
namespace {

// How long what a peer sent before it left may take to arrive.
constexpr Duration kLastBytes = std::chrono::seconds(1);
// How long NCCL may take to set a communicator up, however soon ranks are to meet: it loads its
// kernels at first. Who dies meanwhile ends the wait at once.
constexpr Duration kSetUp = std::chrono::seconds(10);
// And to shrink one: what it saves is time.
constexpr Duration kShrink = std::chrono::seconds(5);
constexpr Duration kLook = std::chrono::microseconds(200);
constexpr int kShrinkAbort = 1;  // NCCL_SHRINK_ABORT: ends what runs on the old one first

size_t RoundUp(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

std::string NameFrom(std::string_view bytes) {
  return Sha256Hex(bytes).substr(0, 16);
}

ncclConfig_t Config() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

// ncclCommShrink waits for the GPU before it returns, and has been seen to hang, so it has a thread
// of its own. The old communicator is aborted when nobody uses this any more.
struct Shrinking {
  std::unique_ptr<NcclHeritage> old;
  std::vector<int> excluded;
  ncclConfig_t config = Config();
  ncclComm_t* made = new ncclComm_t(nullptr);  // which NCCL sets in the background
  ncclResult_t result = ncclInProgress;
  std::atomic<bool> done{false}, given_up{false};

  void Work() {
    cudaSetDevice(old->own.device);
    result = Nccl().shrink(old->own.comm, excluded.data(), static_cast<int>(excluded.size()), made,
                           &config, kShrinkAbort);
    while (!given_up && result == ncclInProgress) {
      if (Nccl().async_error(old->own.comm, &result) != ncclSuccess) result = ncclInternalError;
      std::this_thread::sleep_for(kLook);
    }
    done = true;
  }
  ~Shrinking() {
    if (result == ncclInProgress) return;  // it may be set still
    NcclEndings::Of().Begin({.device = old->own.device, .comm = *made}, NcclEndings::How::kAborted);
    delete made;
  }
};

}  // namespace

NcclMesh::~NcclMesh() {
  Leave(failure_->raised() ? NcclEndings::How::kAborted : NcclEndings::How::kFlushed);
}

void NcclMesh::Leave(NcclEndings::How how) {
  NcclEndings::Of().Begin(std::exchange(own_, NcclBelongings{.device = own_.device}), how);
}

std::unique_ptr<NcclHeritage> NcclMesh::Release() {
  if (own_.comm == nullptr || !failure_->raised()) return nullptr;
  auto heritage = std::make_unique<NcclHeritage>();
  heritage->own = std::exchange(own_, NcclBelongings{.device = own_.device});
  heritage->name = name_;
  heritage->rank = rank_;
  heritage->size = size_;
  return heritage;
}

Status NcclMesh::MakeStream() {
  return CudaStatus(cudaStreamCreateWithFlags(&own_.stream, cudaStreamNonBlocking),
                    "cudaStreamCreate");
}

Status NcclMesh::Connect(const ncclUniqueId& id, int rank, int size, Deadline deadline) {
  const OnDevice on_device(own_.device);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(MakeStream());
  name_ = NameFrom({id.internal, sizeof(id.internal)});
  rank_ = rank;
  size_ = size;
  ncclConfig_t config = Config();
  LEPTON_RETURN_IF_ERROR(
      NcclStatus(Nccl().init(&own_.comm, size, id, rank, &config), "ncclCommInitRankConfig"));
  Status made = AwaitComm({}, Deadline(std::max(deadline.at(), RealClock().Now() + kSetUp)));
  if (const int earlier = NcclEndings::Of().running(); !made.ok() && earlier > 0) {
    made = made.WithContext("while " + std::to_string(earlier) +
                            " earlier communicators have not ended");
  }
  return made.WithContext("ncclCommInitRankConfig");
}

Status NcclMesh::Shrink(std::unique_ptr<NcclHeritage> old, std::vector<int> excluded) {
  Status made = TryShrink(std::move(old), std::move(excluded));
  // Unless a peer died meanwhile, which says nothing of it.
  if (!made.ok() && !failure_->raised()) TrustShrinks(false);
  return made;
}

Status NcclMesh::TryShrink(std::unique_ptr<NcclHeritage> old, std::vector<int> excluded) {
  const OnDevice on_device(own_.device);
  LEPTON_RETURN_IF_ERROR(on_device.status());
  LEPTON_RETURN_IF_ERROR(MakeStream());
  name_ = old->name;
  for (const int rank : excluded) name_ += "-" + std::to_string(rank);
  name_ = NameFrom(name_);
  const auto before = [&](int rank) { return rank < old->rank; };
  rank_ = old->rank - static_cast<int>(std::count_if(excluded.begin(), excluded.end(), before));
  size_ = old->size - static_cast<int>(excluded.size());
  auto shrinking = std::make_shared<Shrinking>();
  shrinking->old = std::move(old);
  shrinking->excluded = std::move(excluded);
  NcclEndings::Of().Run([shrinking] { shrinking->Work(); });
  const Deadline deadline = Deadline::In(kShrink);
  while (!shrinking->done) {
    if (Status over = CheckFailure({}, deadline); !over.ok()) {
      shrinking->given_up = true;
      return over.WithContext("ncclCommShrink");
    }
    std::this_thread::sleep_for(kLook);
  }
  LEPTON_RETURN_IF_ERROR(NcclStatus(shrinking->result, "ncclCommShrink"));
  own_.comm = std::exchange(*shrinking->made, nullptr);
  if (own_.comm == nullptr) return Aborted("ncclCommShrink made nothing");
  return AwaitComm({}, deadline).WithContext("ncclCommShrink");
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
    LEPTON_RETURN_IF_ERROR(NcclStatus(asynchronous, "NCCL"));
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
  Status moved = Enqueue(transfers, deadline);
  if (moved.ok()) {
    Activity::Moved();
    moved = AwaitStream(transfers, deadline);
  }
  if (!moved.ok()) {
    // One that waits for who is gone is kept for the survivors, until the group's end.
    if (!failure_->raised() || !MayShrink()) Leave(NcclEndings::How::kAborted);
    return moved;
  }
  Activity::Moved();
  size_t at = 0;
  for (Transfer& t : transfers) {
    if (!t.send) std::memcpy(t.data, own_.host + at, t.bytes);
    t.done = t.bytes;
    at += RoundUp(t.bytes);
  }
  return {};
}

}  // namespace lepton::collectives

#endif
