#include "collectives/transport/shared_segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <mutex>

namespace lepton::collectives {
namespace {

constexpr uint64_t kSegmentMagic = 0x314c4f434e54504c;  // "LPTNCOL1"
constexpr size_t kPage = 4096;

struct Header {
  uint64_t magic;
  uint64_t ranks;
  uint64_t size;
  unsigned char tag[32];
};

size_t RoundToPage(size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

struct Layout {
  size_t bells, slots, rings, ring_bytes, slot_bytes, size;
};

Layout LayoutFor(int ranks) {
  size_t n = static_cast<size_t>(ranks);
  Layout at{};
  at.bells = kPage;
  at.slots = at.bells + RoundToPage(n * sizeof(Bell));
  at.rings = at.slots + RoundToPage(n * 2 * sizeof(SlotHeader));
  at.ring_bytes = at.rings + RoundToPage(n * n * sizeof(RingHeader));
  at.slot_bytes = at.ring_bytes + n * n * kRingBytes;
  at.size = at.slot_bytes + n * 2 * kSlotBytes;
  return at;
}

// Ranks that are threads of one process share one mapping.
std::mutex mappings_mutex;
std::map<ino_t, std::weak_ptr<SharedSegment>>& Mappings() {
  static auto* mappings = new std::map<ino_t, std::weak_ptr<SharedSegment>>;
  return *mappings;
}

}  // namespace

SharedSegment::SharedSegment(UniqueFd fd, void* base, size_t size, int ranks)
    : fd_(std::move(fd)), base_(static_cast<unsigned char*>(base)), size_(size), ranks_(ranks) {}

SharedSegment::~SharedSegment() {
  munmap(base_, size_);
}

Result<std::shared_ptr<SharedSegment>> SharedSegment::Map(UniqueFd fd, int ranks) {
  size_t size = LayoutFor(ranks).size;
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, "mmap of the group's shared memory");
  return std::shared_ptr<SharedSegment>(new SharedSegment(std::move(fd), base, size, ranks));
}

Result<std::shared_ptr<SharedSegment>> SharedSegment::Create(int ranks, const std::string& tag) {
  UniqueFd fd(memfd_create("lepton-collectives", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create");
  size_t size = LayoutFor(ranks).size;
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return ErrnoStatus(errno, "ftruncate");
  // No peer can shrink it under another's feet.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "sealing shared memory");
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "fstat");
  LEPTON_ASSIGN_OR_RETURN(auto segment, Map(std::move(fd), ranks));
  Header header{kSegmentMagic, static_cast<uint64_t>(ranks), size, {}};
  std::memcpy(header.tag, tag.data(), std::min(tag.size(), sizeof(header.tag)));
  std::memcpy(segment->base_, &header, sizeof(header));
  std::lock_guard lock(mappings_mutex);
  std::erase_if(Mappings(), [](const auto& known) { return known.second.expired(); });
  Mappings()[info.st_ino] = segment;
  return segment;
}

Result<std::shared_ptr<SharedSegment>> SharedSegment::Open(int pid, int fd, int ranks,
                                                           const std::string& tag) {
  std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  UniqueFd opened(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!opened.valid()) return ErrnoStatus(errno, path);
  struct stat info {};
  size_t size = LayoutFor(ranks).size;
  if (fstat(opened.get(), &info) != 0) return ErrnoStatus(errno, path);
  if (static_cast<size_t>(info.st_size) != size) {
    return FailedPrecondition(path + ": not the group's shared memory: wrong size");
  }
  if (pid == getpid()) {
    std::lock_guard lock(mappings_mutex);
    if (auto same = Mappings()[info.st_ino].lock()) return same;
  }
  LEPTON_ASSIGN_OR_RETURN(auto segment, Map(std::move(opened), ranks));
  Header expected{kSegmentMagic, static_cast<uint64_t>(ranks), size, {}};
  std::memcpy(expected.tag, tag.data(), std::min(tag.size(), sizeof(expected.tag)));
  if (std::memcmp(segment->base_, &expected, sizeof(expected)) != 0) {
    return FailedPrecondition(path + ": not the group's shared memory: wrong tag");
  }
  return segment;
}

Bell& SharedSegment::bell(int index) const {
  return reinterpret_cast<Bell*>(base_ + LayoutFor(ranks_).bells)[index];
}

SlotHeader& SharedSegment::slot(int index, int parity) const {
  return reinterpret_cast<SlotHeader*>(base_ + LayoutFor(ranks_).slots)[index * 2 + parity];
}

unsigned char* SharedSegment::slot_bytes(int index, int parity) const {
  return base_ + LayoutFor(ranks_).slot_bytes +
         static_cast<size_t>(index * 2 + parity) * kSlotBytes;
}

RingHeader& SharedSegment::ring(int from, int to) const {
  return reinterpret_cast<RingHeader*>(base_ + LayoutFor(ranks_).rings)[from * ranks_ + to];
}

unsigned char* SharedSegment::ring_bytes(int from, int to) const {
  return base_ + LayoutFor(ranks_).ring_bytes +
         static_cast<size_t>(from * ranks_ + to) * kRingBytes;
}

void Ring(Bell& bell) {
  if (bell.sleeping.load(std::memory_order_seq_cst) != 0) RingAlways(bell);
}

void RingAlways(Bell& bell) {
  bell.rings.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &bell.rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace lepton::collectives
