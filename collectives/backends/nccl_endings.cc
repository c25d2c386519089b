#include "collectives/backends/nccl_endings.h"

#ifdef LEPTON_HAS_NCCL

#include <cstdlib>
#include <thread>
#include <utility>

#include "runtime/base/named_thread.h"

namespace lepton::collectives {
namespace {

// How long NCCL may take to flush a communicator that is no longer used.
constexpr Duration kFlush = std::chrono::seconds(5);
// How long the process's end waits for communicators that are ending.
constexpr Duration kEndPatience = std::chrono::seconds(2);

// Until what was sent has left this host.
bool Flush(ncclComm_t comm) {
  const Deadline deadline = Deadline::In(kFlush);
  ncclResult_t state = Nccl().finalize(comm);
  while ((state == ncclSuccess || state == ncclInProgress) && !deadline.Expired()) {
    if (Nccl().async_error(comm, &state) != ncclSuccess) return false;
    if (state == ncclSuccess) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the others compute
  }
  return false;
}

void End(const NcclBelongings& old, NcclEndings::How how) {
  cudaSetDevice(old.device);
  if (old.comm != nullptr) {
    if (how == NcclEndings::How::kFlushed && Flush(old.comm)) {
      Nccl().destroy(old.comm);
    } else {
      Nccl().abort(old.comm);
    }
  }
  cudaFree(old.gpu);
  cudaFreeHost(old.host);
  if (old.stream != nullptr) cudaStreamDestroy(old.stream);
}

}  // namespace

NcclEndings& NcclEndings::Of() {
  static NcclEndings* const endings = [] {
    std::atexit([] { Of().Await(kEndPatience); });
    return new NcclEndings;
  }();
  return *endings;
}

void NcclEndings::Begin(const NcclBelongings& old, How how) {
  if (old.comm == nullptr && old.stream == nullptr) return;
  Run([old, how] { End(old, how); });
}

void NcclEndings::Run(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    ++running_;
  }
  NamedThread("nccl-end", [this, work = std::move(work)] {
    work();
    std::lock_guard lock(mutex_);
    --running_;
    changed_.notify_all();
  }).detach();
}

int NcclEndings::running() const {
  std::lock_guard lock(mutex_);
  return running_;
}

void NcclEndings::Await(Duration at_most) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, at_most, [this] { return running_ == 0; });
}

}  // namespace lepton::collectives

#endif
