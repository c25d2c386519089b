#include "scheduler/placement/whole_world.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

namespace lepton::placement {
namespace {

struct World {
  uint32_t size = 0;  // as its launcher began it
  std::vector<const Seat*> seats;
};

std::map<std::string, World> WorldsOf(const std::vector<const Seat*>& seats) {
  std::map<std::string, World> worlds;
  for (const Seat* seat : seats) {
    if (seat->world.empty()) continue;
    World& world = worlds[seat->world];
    world.size = std::max(world.size, seat->world_size);
    world.seats.push_back(seat);
  }
  return worlds;
}

// Why the gang cannot be there.
struct Obstacle {
  std::string text;
  bool passes = false;  // when what runs there ends
};

std::optional<Obstacle> ObstacleIn(const World& world, const GangRequest& request) {
  const auto any = [&](auto is) { return std::any_of(world.seats.begin(), world.seats.end(), is); };
  const auto least = static_cast<uint32_t>(request.min_workers);
  const auto most = static_cast<uint32_t>(std::max(request.min_workers, request.max_workers));
  if (world.size < least || world.size > most)
    return Obstacle{fmt::format("one has {}", world.size)};
  if (any([](const Seat* seat) { return seat->world_over; })) {
    return Obstacle{fmt::format("one of {} has lost a rank", world.size)};
  }
  if (world.seats.size() < world.size) {
    return Obstacle{
        fmt::format("of one of {} only {} may be used", world.size, world.seats.size())};
  }
  if (any([&](const Seat* seat) { return seat->slots < request.slots; })) {
    return Obstacle{fmt::format("one of {} has a worker of fewer slots", world.size)};
  }
  if (any([](const Seat* seat) { return seat->world_in_use; })) {
    return Obstacle{fmt::format("one of {} is in use by another gang's MPI", world.size), true};
  }
  if (any([&](const Seat* seat) { return seat->free < request.slots; })) {
    return Obstacle{fmt::format("one of {} has not so many slots free", world.size), true};
  }
  return std::nullopt;
}

}  // namespace

Placement PlaceInWholeWorld(const std::vector<const Seat*>& seats, const GangRequest& request) {
  constexpr size_t kNamed = 3;
  const std::map<std::string, World> worlds = WorldsOf(seats);
  const World* best = nullptr;
  Placement placed;
  placed.never = true;
  placed.reason =
      fmt::format("needs all of an mpirun or srun of {} workers, {} slot{} on each{}",
                  request.max_workers > request.min_workers
                      ? fmt::format("{} to {}", request.min_workers, request.max_workers)
                      : std::to_string(request.min_workers),
                  request.slots, request.slots == 1 ? "" : "s", request.gpu ? ", with GPUs" : "");
  if (worlds.empty()) placed.reason += "; no worker was started by either";
  size_t named = 0;
  for (const auto& [name, world] : worlds) {
    const std::optional<Obstacle> obstacle = ObstacleIn(world, request);
    if (!obstacle) {
      if (best == nullptr || world.size > best->size) best = &world;
      continue;
    }
    placed.never = placed.never && !obstacle->passes;
    if (++named <= kNamed) placed.reason += "; " + obstacle->text;
  }
  if (best == nullptr) return placed;
  // Neighbours in rank order sit on one host, where they share memory.
  std::vector<const Seat*> ranks = best->seats;
  std::sort(ranks.begin(), ranks.end(), [](const Seat* a, const Seat* b) {
    return std::tie(a->host, a->worker) < std::tie(b->host, b->worker);
  });
  placed = {};
  for (const Seat* seat : ranks) placed.workers.push_back(seat->worker);
  placed.reason = fmt::format("all {} workers of one mpirun or srun", best->size);
  return placed;
}

}  // namespace lepton::placement
