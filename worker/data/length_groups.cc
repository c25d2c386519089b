#include "worker/data/length_groups.h"

#include <iterator>
#include <map>
#include <utility>

namespace lepton::worker {
namespace {

// Padding that costs as much as another batch's reading of the weights.
constexpr int64_t kTokensForABatch = 64;

}  // namespace

std::vector<std::vector<int64_t>> GroupsByLength(const Examples& source,
                                                 std::span<const int64_t> examples) {
  std::map<int64_t, std::vector<int64_t>> by_length;
  for (const int64_t example : examples) {
    by_length[source.padded_length(example)].push_back(example);
  }
  std::vector<std::vector<int64_t>> groups;
  for (auto at = by_length.begin(); at != by_length.end(); ++at) {
    const auto longer = std::next(at);
    const auto rows = static_cast<int64_t>(at->second.size());
    if (longer != by_length.end() && rows * (longer->first - at->first) < kTokensForABatch) {
      longer->second.insert(longer->second.begin(), at->second.begin(), at->second.end());
    } else {
      groups.push_back(std::move(at->second));
    }
  }
  return groups;
}

}  // namespace lepton::worker
