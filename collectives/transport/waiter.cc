#include "collectives/transport/waiter.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace lepton::collectives {
namespace {

constexpr Duration kMixedSleep = std::chrono::microseconds(200);
// All of a wait's yields together; and one behind which there was more than another's look.
constexpr Duration kYieldBudget = std::chrono::microseconds(500);
constexpr Duration kLongYield = std::chrono::microseconds(100);

timespec ToTimespec(Duration duration) {
  auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  timespec out{};
  out.tv_sec = static_cast<time_t>(seconds.count());
  out.tv_nsec = static_cast<long>((duration - seconds).count());
  return out;
}

}  // namespace

bool HaveCoresOfTheirOwn(const std::vector<int>& pids) {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (const int pid : pids) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(pid, sizeof(set), &set) == 0) CPU_OR(&all, &all, &set);
  }
  return static_cast<size_t>(CPU_COUNT(&all)) >= pids.size();
}

bool Yields::Again() {
  if (left_ <= Duration::zero()) return false;
  const MonotonicTime before = RealClock().Now();
  sched_yield();
  const Duration took = RealClock().Now() - before;
  left_ = took < kLongYield ? left_ - took : Duration::zero();
  return true;
}

Waiter::Waiter(const Failure& failure, Bell* bell, bool roomy, bool blind)
    : failure_(failure), bell_(bell), roomy_(roomy), blind_(blind) {
  SetPatient(false);
}

void Waiter::SetPatient(bool patient) {
  spins_ = patient ? 1 : roomy_ ? 2000 : 2;
  yields_ = patient ? Duration::zero() : kYieldBudget;
}

Status Waiter::SlowUntil(const std::function<bool()>& ready, int peer, Deadline deadline) const {
  for (Yields yields(yields_); yields.Again();) {
    if (ready()) return {};
    if (failure_.raised()) return failure_.cause();
  }
  while (true) {
    uint32_t rings = bell_->rings.load(std::memory_order_seq_cst);
    bell_->sleeping.store(1, std::memory_order_seq_cst);
    bool left = failure_.HasLeft(peer);  // read before ready(): what it sent came before goodbye
    bool done = ready();
    if (!done && !left && !failure_.raised() && !deadline.Expired()) {
      FutexSleep(rings, deadline.Left());
    }
    bell_->sleeping.store(0, std::memory_order_relaxed);
    if (done || ready()) return {};
    if (failure_.raised()) return failure_.cause();
    if (left) return Unavailable("it left the group");
    if (deadline.Expired()) return DeadlineExceeded("no answer in time");
  }
}

Status Waiter::BlindUntil(const std::function<bool()>& ready) const {
  while (!ready()) roomy_ ? CpuRelax() : static_cast<void>(sched_yield());
  return {};
}

void Waiter::SleepOnce(std::vector<pollfd>& fds, bool use_bell, const std::function<bool()>& moved,
                       Deadline deadline) const {
  if (!use_bell) {
    timespec left = ToTimespec(deadline.Left());
    ppoll(fds.data(), fds.size(), &left, nullptr);
    return;
  }
  uint32_t rings = bell_->rings.load(std::memory_order_seq_cst);
  bell_->sleeping.store(1, std::memory_order_seq_cst);
  if (!moved() && !failure_.raised()) {
    if (fds.size() <= 1) {  // only the failure's own descriptor, which also rings the bell
      FutexSleep(rings, deadline.Left());
    } else {
      timespec left = ToTimespec(std::min(kMixedSleep, deadline.Left()));
      ppoll(fds.data(), fds.size(), &left, nullptr);
    }
  }
  bell_->sleeping.store(0, std::memory_order_relaxed);
}

void Waiter::FutexSleep(uint32_t rings, Duration at_most) const {
  timespec timeout = ToTimespec(at_most);
  syscall(SYS_futex, &bell_->rings, FUTEX_WAIT, rings, &timeout, nullptr, 0);
}

}  // namespace lepton::collectives
