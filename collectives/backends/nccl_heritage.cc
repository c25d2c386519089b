#include "collectives/backends/nccl_heritage.h"

#ifdef LEPTON_HAS_NCCL

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace lepton::collectives {
namespace {

constexpr int kFirstThatShrinks = 22809;
constexpr int kMostRanks = 1 << 20;

std::atomic<bool> shrinks_work{true};

struct Place {
  std::string_view name;
  int rank = 0, size = 0;
};

// "name.rank.size"
std::optional<Place> Parse(std::string_view text) {
  const size_t last = text.rfind('.');
  if (last == text.npos || last == 0) return std::nullopt;
  const size_t first = text.rfind('.', last - 1);
  if (first == text.npos) return std::nullopt;
  const auto number = [&](std::string_view digits, int* out) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *out);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  Place place{.name = text.substr(0, first)};
  if (!number(text.substr(first + 1, last - first - 1), &place.rank)) return std::nullopt;
  if (!number(text.substr(last + 1), &place.size)) return std::nullopt;
  const bool sound = place.rank >= 0 && place.rank < place.size && place.size <= kMostRanks;
  return sound ? std::optional(place) : std::nullopt;
}

}  // namespace

bool MayShrink() {
  if (Nccl().shrink == nullptr || !shrinks_work) return false;
  const char* const wish = std::getenv("LEPTON_NCCL_SHRINK");
  if (wish != nullptr && std::string_view(wish) == "0") return false;
  int version = 0;
  return Nccl().version(&version) == ncclSuccess && version >= kFirstThatShrinks;
}

void TrustShrinks(bool trusted) {
  shrinks_work = trusted;
}

NcclHeritage::~NcclHeritage() {
  NcclEndings::Of().Begin(own, NcclEndings::How::kAborted);
}

std::string NcclHeritage::Encode() const {
  return name + "." + std::to_string(rank) + "." + std::to_string(size);
}

// A shrink keeps the order of the ranks.
std::vector<int> RanksToExclude(const std::vector<std::string>& heritages) {
  std::vector<int> excluded;
  std::optional<Place> first;
  int next = 0;  // the least old rank that the next member may have had
  for (const std::string& text : heritages) {
    const std::optional<Place> place = Parse(text);
    if (!place) return {};
    if (!first) first = place;
    if (place->name != first->name || place->size != first->size || place->rank < next) return {};
    for (; next < place->rank; ++next) excluded.push_back(next);
    ++next;
  }
  if (!first) return {};
  for (; next < first->size; ++next) excluded.push_back(next);
  return excluded;
}

}  // namespace lepton::collectives

#endif
