#include "worker/train/zero_holders.h"

#include <algorithm>

namespace lepton::worker {

bool Holds(const std::vector<Elements>& held, const Elements& part) {
  return std::any_of(held.begin(), held.end(), [&](const Elements& one) { return one.Has(part); });
}

std::vector<Elements> CutAtParts(const Elements& range,
                                 const std::vector<std::vector<Elements>>& held) {
  std::vector<int64_t> cuts = {range.begin, range.end};
  for (const auto& parts : held) {
    for (const Elements& part : parts) {
      for (const int64_t cut : {part.begin, part.end}) {
        if (range.begin < cut && cut < range.end) cuts.push_back(cut);
      }
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Elements> pieces;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) pieces.push_back({cuts[i], cuts[i + 1]});
  return pieces;
}

int FirstHolder(const std::vector<std::vector<Elements>>& held, const Elements& part) {
  for (size_t rank = 0; rank < held.size(); ++rank) {
    if (Holds(held[rank], part)) return static_cast<int>(rank);
  }
  return -1;
}

int FirstOf(const std::vector<bool>& ranks) {
  const auto found = std::find(ranks.begin(), ranks.end(), true);
  return found == ranks.end() ? -1 : static_cast<int>(found - ranks.begin());
}

}  // namespace lepton::worker
