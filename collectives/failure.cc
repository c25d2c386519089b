#include "collectives/failure.h"

#include <sys/eventfd.h>

#include <cerrno>

namespace lepton::collectives {

Result<std::shared_ptr<Failure>> Failure::Make(int group_size) {
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return ErrnoStatus(errno, "eventfd");
  return std::shared_ptr<Failure>(new Failure(group_size, std::move(event)));
}

bool Failure::Raise(Status cause) {
  {
    std::lock_guard lock(mutex_);
    if (!cause_.ok() || cause.ok()) return false;
    cause_ = std::move(cause);
    raised_.store(true, std::memory_order_release);
    eventfd_write(event_.get(), 1);
  }
  raised_changed_.notify_all();
  Wake();
  return true;
}

Status Failure::cause() const {
  std::lock_guard lock(mutex_);
  return cause_;
}

bool Failure::WaitRaised(Duration at_most) const {
  std::unique_lock lock(mutex_);
  return raised_changed_.wait_for(lock, at_most, [this] { return !cause_.ok(); });
}

void Failure::AddWaker(std::function<void()> wake) {
  wakers_.push_back(std::move(wake));
}

void Failure::MarkLeft(int rank) {
  left_[rank].store(true, std::memory_order_release);
  Wake();
}

void Failure::Wake() const {
  for (const auto& wake : wakers_) wake();
}

}  // namespace lepton::collectives
