// The shared memory of one host's ranks of a group: an anonymous memfd that only the group maps, so
// that nothing is left in /dev/shm whatever kills whom, and its pages go with the last rank.
//
// Layout, every part on its own page or cache line, by local index (0 .. ranks-1):
//   Header                      checked when mapped: magic, sizes, a tag made from the group's
//   token Bell       [ranks]          where a rank sleeps SlotHeader [ranks][2]       flags and
//   tiny payloads of the collective rounds (SharedWindow) RingHeader [ranks][ranks]   [from][to],
//   one-way byte rings (ShmLink) ring bytes [ranks][ranks]   kRingBytes each slot bytes [ranks][2]
//   kSlotBytes each
// Pages are untouched, and so not there, until used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

inline constexpr size_t kRingBytes = size_t{128} << 10;  // a power of two
inline constexpr size_t kSlotBytes = size_t{1} << 20;
inline constexpr size_t kInlineBytes = 48;

// Where one rank sleeps. A waker changes what the sleeper looks at, then reads `sleeping`; a
// sleeper sets `sleeping`, then looks: both sequentially consistent, so one of them sees the other.
struct alignas(64) Bell {
  std::atomic<uint32_t> rings;  // the futex word
  std::atomic<uint32_t> sleeping;
};

// One of a rank's two round buffers. `posted` and a tiny payload share a cache line, so that one
// transfer between cores brings both.
struct alignas(64) SlotHeader {
  std::atomic<uint64_t> posted;     // the last round whose data is here
  std::atomic<uint64_t> signature;  // of the operation in that round, to catch mismatched calls
  unsigned char payload[kInlineBytes];
  alignas(64) std::atomic<uint64_t> reduced;  // the last round whose slice was reduced in place
};

struct alignas(64) RingHeader {
  std::atomic<uint64_t> written;           // bytes, by the sender only
  alignas(64) std::atomic<uint64_t> read;  // bytes, by the receiver only
};

class SharedSegment {
 public:
  // `tag` must be equal in all ranks: it shows that a mapping is of this group.
  static Result<std::shared_ptr<SharedSegment>> Create(int ranks, const std::string& tag);
  // Maps what `pid` holds as descriptor `fd`. kPermissionDenied, kNotFound or kFailedPrecondition
  // when it cannot be reached or is not this group's.
  static Result<std::shared_ptr<SharedSegment>> Open(int pid, int fd, int ranks,
                                                     const std::string& tag);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  int ranks() const { return ranks_; }
  int fd() const { return fd_.get(); }
  Bell& bell(int index) const;
  SlotHeader& slot(int index, int parity) const;
  unsigned char* slot_bytes(int index, int parity) const;
  RingHeader& ring(int from, int to) const;
  unsigned char* ring_bytes(int from, int to) const;

 private:
  SharedSegment(UniqueFd fd, void* base, size_t size, int ranks);
  static Result<std::shared_ptr<SharedSegment>> Map(UniqueFd fd, int ranks);

  UniqueFd fd_;
  unsigned char* base_;
  size_t size_;
  int ranks_;
};

// Wakes the rank that sleeps at `bell`, if it sleeps. Call after a sequentially consistent change
// of what it waits for.
void Ring(Bell& bell);
// The same without looking, for wakers outside the protocol (failures).
void RingAlways(Bell& bell);

}  // namespace lepton::collectives
