#include "scheduler/placement/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

namespace lepton::placement {
namespace {

using Seats = std::vector<const Seat*>;

uint64_t RanksIn(uint32_t slots, uint32_t per_rank) {
  return per_rank == 0 ? std::numeric_limits<uint32_t>::max() : slots / per_rank;
}

uint64_t TotalRanks(const Seats& seats, uint32_t per_rank, uint32_t Seat::*field) {
  uint64_t ranks = 0;
  for (const Seat* seat : seats) ranks += RanksIn(seat->*field, per_rank);
  return ranks;
}

// The sets of workers among which one gang may be spread.
std::vector<Seats> Candidates(const std::vector<Seat>& all, const GangRequest& request) {
  std::map<std::string, Seats> by_world;
  for (const Seat& seat : all) {
    if (request.excluded.contains(seat.worker) || (request.gpu && seat.gpus == 0)) continue;
    // A worker that no launcher started is a world of its own.
    const bool alone = request.one_world && seat.world.empty();
    by_world[!request.one_world ? ""
             : alone            ? "worker " + seat.worker
                                : seat.world]
        .push_back(&seat);
  }
  std::vector<Seats> result;
  for (auto& [world, seats] : by_world) result.push_back(std::move(seats));
  return result;
}

// Round after round over the workers, one rank each, until `count` ranks sit.
std::vector<std::string> Spread(Seats seats, uint32_t slots, uint64_t count) {
  std::stable_sort(seats.begin(), seats.end(), [](const Seat* a, const Seat* b) {
    if (a->load != b->load) return a->load < b->load;
    if (a->free != b->free) return a->free > b->free;
    return a->worker < b->worker;
  });
  std::vector<const Seat*> ranks;
  for (uint64_t round = 0; ranks.size() < count; ++round) {
    for (const Seat* seat : seats) {
      if (ranks.size() < count && RanksIn(seat->free, slots) > round) ranks.push_back(seat);
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

std::string Needs(const GangRequest& request) {
  return fmt::format("needs {} x {} slots{}{}", request.min_workers, request.slots,
                     request.gpu ? " on workers with GPUs" : "",
                     request.one_world ? " in one launcher world" : "");
}

Placement Refuse(const std::vector<Seats>& candidates, const GangRequest& request) {
  Placement refused;
  uint64_t free = 0, total = 0, most = 0;
  for (const Seats& seats : candidates) {
    for (const Seat* seat : seats) free += seat->free, total += seat->slots;
    most = std::max(most, TotalRanks(seats, request.slots, &Seat::slots));
  }
  refused.never = most < static_cast<uint64_t>(request.min_workers);
  refused.reason = fmt::format("{}, {} free of {}", Needs(request), free, total);
  if (!request.excluded.empty()) {
    refused.reason += fmt::format(", {} workers excluded", request.excluded.size());
  }
  return refused;
}

}  // namespace

Placement PlaceGang(const std::vector<Seat>& seats, const GangRequest& request) {
  const std::vector<Seats> candidates = Candidates(seats, request);
  const Seats* best = nullptr;
  uint64_t best_ranks = 0;
  for (const Seats& candidate : candidates) {
    const uint64_t ranks = TotalRanks(candidate, request.slots, &Seat::free);
    if (ranks > best_ranks) best = &candidate, best_ranks = ranks;
  }
  if (best == nullptr || best_ranks < static_cast<uint64_t>(request.min_workers)) {
    return Refuse(candidates, request);
  }
  const int most = std::max(request.min_workers, request.max_workers);
  const uint64_t count = std::min(best_ranks, static_cast<uint64_t>(most));
  Placement placed;
  placed.workers = Spread(*best, request.slots, count);
  placed.reason = fmt::format("{} of at most {} ranks", count, most);
  return placed;
}

}  // namespace lepton::placement
