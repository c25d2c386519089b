#include "scheduler/core/reachability.h"

#include <algorithm>

#include "scheduler/core/index.h"

namespace lepton::scheduler {
namespace {

constexpr int kMostSearched = 20'000;  // sets of members

// Branches on the member with the most cuts: it stays and all that it cannot reach go, or it goes.
class Search {
 public:
  explicit Search(const std::set<SeatPair>& cuts) : cuts_(cuts) {}

  std::vector<uint32_t> Run(const std::vector<uint32_t>& members) {
    order_ = members;
    Visit(members);
    return best_;
  }

 private:
  bool Cut(uint32_t a, uint32_t b) const {
    return cuts_.contains({std::min(a, b), std::max(a, b)});
  }
  // Of those that stay, by rank: more is better, then those that come first.
  bool Better(const std::vector<uint32_t>& members) const {
    if (members.size() != best_.size()) return members.size() > best_.size();
    for (const uint32_t member : order_) {
      const bool here = std::find(members.begin(), members.end(), member) != members.end();
      const bool there = std::find(best_.begin(), best_.end(), member) != best_.end();
      if (here != there) return here;
    }
    return false;
  }

  void Visit(const std::vector<uint32_t>& members) {
    if (members.size() < best_.size()) return;
    const bool greedy = ++visited_ > kMostSearched;
    std::ptrdiff_t most = 0;
    uint32_t worst = 0;
    for (const uint32_t one : members) {
      const auto count = std::count_if(members.begin(), members.end(),
                                       [&](uint32_t other) { return Cut(one, other); });
      // Of equals the last: that it goes is tried first when the search is cut short.
      if (count >= most && count > 0) worst = one;
      most = std::max(most, count);
    }
    if (most == 0) {
      if (Better(members)) best_ = members;
      return;
    }
    std::vector<uint32_t> without = members;
    std::erase(without, worst);
    Visit(without);
    if (greedy) return;
    std::vector<uint32_t> with = members;
    std::erase_if(with, [&](uint32_t other) { return Cut(worst, other); });
    Visit(with);
  }

  const std::set<SeatPair>& cuts_;
  std::vector<uint32_t> order_, best_;
  int visited_ = 0;
};

}  // namespace

std::set<SeatPair> CutPairs(const Gang& gang) {
  std::set<SeatPair> pairs;
  const auto is_here = [&](uint32_t seat) {
    return static_cast<int>(seat) < gang.tasks_size() &&
           std::find(gang.members().begin(), gang.members().end(), seat) != gang.members().end() &&
           IsUp(gang.tasks(static_cast<int>(seat))) &&
           !gang.tasks(static_cast<int>(seat)).leaving();
  };
  for (const uint32_t seat : gang.members()) {
    if (!is_here(seat)) continue;
    for (const wire::Unreachable& other : gang.tasks(static_cast<int>(seat)).unreachable()) {
      if (other.seat() == seat || !is_here(other.seat())) continue;
      pairs.emplace(std::min(seat, other.seat()), std::max(seat, other.seat()));
    }
  }
  return pairs;
}

std::vector<uint32_t> LargestReachable(const std::vector<uint32_t>& members,
                                       const std::set<SeatPair>& cuts) {
  return Search(cuts).Run(members);
}

bool SamePair(const Cut& a, const Cut& b) {
  return a.worker_a() == b.worker_a() && a.worker_b() == b.worker_b();
}

bool HasMemberOn(const Gang& gang, const std::string& worker) {
  return std::any_of(gang.members().begin(), gang.members().end(), [&](uint32_t seat) {
    return gang.tasks(static_cast<int>(seat)).worker_id() == worker;
  });
}

std::set<std::string> WorkersBehindCuts(const Gang& gang, int64_t now_ms) {
  const auto used = [&](const std::string& worker) {
    return std::any_of(gang.tasks().begin(), gang.tasks().end(), [&](const Task& task) {
      return IsAlive(task) && !task.leaving() && task.worker_id() == worker;
    });
  };
  std::set<std::string> behind;
  for (const Cut& cut : gang.cuts()) {
    if (now_ms >= cut.retry_at_ms()) continue;
    if (cut.worker_a() == cut.worker_b() && !used(cut.worker_a())) continue;  // one may be there
    // Where neither is in use, one of them may be.
    behind.insert(used(cut.worker_b()) ? cut.worker_a() : cut.worker_b());
  }
  return behind;
}

}  // namespace lepton::scheduler
