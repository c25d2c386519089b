#include "scheduler/placement/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "scheduler/placement/whole_world.h"

namespace lepton::placement {
namespace {

using Seats = std::vector<const Seat*>;

// How many ranks go into so many of its slots.
uint64_t RanksIn(const Seat& seat, uint32_t slots, const GangRequest& request) {
  const uint64_t ranks =
      request.slots == 0 ? std::numeric_limits<uint32_t>::max() : slots / request.slots;
  if (!request.gpu_each) return ranks;
  const uint32_t gpus = seat.gpus - std::min(seat.gpus, seat.gang_ranks);
  return std::min<uint64_t>(ranks, gpus);
}

uint64_t TotalRanks(const Seats& seats, const GangRequest& request, uint32_t Seat::*field) {
  uint64_t ranks = 0;
  for (const Seat* seat : seats) ranks += RanksIn(*seat, seat->*field, request);
  return ranks;
}

Seats UsableSeats(const std::vector<Seat>& all, const GangRequest& request) {
  Seats usable;
  for (const Seat& seat : all) {
    if (!request.excluded.contains(seat.worker) && (!request.gpu || seat.gpus > 0)) {
      usable.push_back(&seat);
    }
  }
  return usable;
}

// Round after round over the workers, one rank each, until `count` ranks sit.
std::vector<std::string> Spread(Seats seats, const GangRequest& request, uint64_t count) {
  std::stable_sort(seats.begin(), seats.end(), [](const Seat* a, const Seat* b) {
    if (a->load != b->load) return a->load < b->load;
    if (a->free != b->free) return a->free > b->free;
    return a->worker < b->worker;
  });
  std::vector<const Seat*> ranks;
  for (uint64_t round = 0; ranks.size() < count; ++round) {
    for (const Seat* seat : seats) {
      if (ranks.size() < count && RanksIn(*seat, seat->free, request) > round)
        ranks.push_back(seat);
    }
  }
  // Neighbours in rank order sit on one host, where they share memory.
  std::stable_sort(ranks.begin(), ranks.end(), [](const Seat* a, const Seat* b) {
    return std::tie(a->host, a->worker) < std::tie(b->host, b->worker);
  });
  std::vector<std::string> workers;
  for (const Seat* seat : ranks) workers.push_back(seat->worker);
  return workers;
}

Placement Refuse(const Seats& seats, const GangRequest& request) {
  Placement refused;
  uint64_t free = 0, total = 0, gpus = 0;
  for (const Seat* seat : seats) free += seat->free, total += seat->slots, gpus += seat->gpus;
  refused.never =
      TotalRanks(seats, request, &Seat::slots) < static_cast<uint64_t>(request.min_workers);
  const char* on = request.gpu_each ? " with a GPU each" : " on workers with GPUs";
  refused.reason = fmt::format("needs {} x {} slots{}, {} free of {}", request.min_workers,
                               request.slots, request.gpu ? on : "", free, total);
  if (request.gpu_each) refused.reason += fmt::format(", {} GPUs", gpus);
  return refused;
}

Placement Place(const Seats& seats, const GangRequest& request) {
  const uint64_t ranks = TotalRanks(seats, request, &Seat::free);
  if (ranks < std::max<uint64_t>(1, static_cast<uint64_t>(request.min_workers))) {
    return Refuse(seats, request);
  }
  const int most = std::max(request.min_workers, request.max_workers);
  const uint64_t count = std::min(ranks, static_cast<uint64_t>(most));
  Placement placed;
  placed.workers = Spread(seats, request, count);
  placed.reason = fmt::format("{} of at most {} ranks", count, most);
  return placed;
}

}  // namespace

Placement PlaceGang(const std::vector<Seat>& seats, const GangRequest& request) {
  const Seats usable = UsableSeats(seats, request);
  Placement placed =
      request.whole_world ? PlaceInWholeWorld(usable, request) : Place(usable, request);
  if (placed.workers.empty() && !request.excluded.empty()) {
    placed.reason += fmt::format(", {} workers excluded", request.excluded.size());
  }
  return placed;
}

}  // namespace lepton::placement
