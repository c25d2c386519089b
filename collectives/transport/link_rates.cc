#include "collectives/transport/link_rates.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace lepton::collectives {
namespace {

constexpr double kSlower = 4;  // than the others
// Of less than that in a window no rate is told, unless it was under way for half of it: it is the
// time of a few acknowledgements.
constexpr uint64_t kLeastBytes = 64 << 10;
// What the kernel cannot tell from nothing: it counts in ticks.
constexpr Duration kLeastBusy = std::chrono::milliseconds(1);
constexpr double kBytesPerUnit = 1000;  // of a row's number

// A rank tells of its slowest links.
constexpr size_t kMostTold = 3;

uint32_t RateOf(uint64_t bytes, Duration busy, bool heavy) {
  if (bytes < kLeastBytes && !heavy) return 0;
  const double seconds = std::chrono::duration<double>(std::max(busy, kLeastBusy)).count();
  const double rate = static_cast<double>(bytes) / seconds / kBytesPerUnit;
  return static_cast<uint32_t>(
      std::clamp(rate, 1.0, static_cast<double>(std::numeric_limits<uint32_t>::max())));
}

}  // namespace

LinkRates::LinkRates(int rank, std::vector<int> hosts)
    : rank_(rank),
      hosts_(std::move(hosts)),
      queued_(hosts_.size()),
      heavy_(hosts_.size()),
      rows_(hosts_.size(), std::vector<uint32_t>(hosts_.size())) {}

void LinkRates::Restart() {
  looks_ = 0;
  heavy_.assign(hosts_.size(), false);
}

bool LinkRates::Look(const std::vector<LinkLook>& looks, MonotonicTime now) {
  if (looks.size() != hosts_.size()) return false;
  if (looks_ == 0) {
    began_ = now;
    first_ = looks;
    queued_.assign(hosts_.size(), 0);
  }
  for (size_t peer = 0; peer < looks.size(); ++peer) queued_[peer] += looks[peer].queued ? 1 : 0;
  if (++looks_ < kWindow) return false;
  for (size_t peer = 0; peer < looks.size(); ++peer) {
    const Duration busy = looks[peer].busy - first_[peer].busy;
    heavy_[peer] = 2 * busy >= now - began_ && 2 * queued_[peer] >= kWindow;
    rows_[rank_][peer] = RateOf(looks[peer].bytes - first_[peer].bytes, busy, heavy_[peer]);
  }
  looks_ = 0;
  return true;
}

std::string LinkRates::row() const {
  const std::vector<uint32_t>& row = rows_[rank_];
  return std::string(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(row[0]));
}

void LinkRates::SetRow(int rank, std::string_view row) {
  if (static_cast<size_t>(rank) >= rows_.size()) return;
  std::vector<uint32_t>& to = rows_[rank];
  if (row.size() == to.size() * sizeof(to[0])) std::memcpy(to.data(), row.data(), row.size());
}

std::vector<double> LinkRates::RatesOf(int peer, const Links& links) const {
  std::vector<double> rates;
  for (const auto& [from, to] : links) {
    if (from != to && Within(from, to) == Within(rank_, peer) && rows_[from][to] > 0) {
      rates.push_back(rows_[from][to]);
    }
  }
  std::sort(rates.begin(), rates.end());
  return rates;
}

bool LinkRates::SpeaksOf(int peer) const {
  for (int rank = 0; rank < rank_; ++rank) {
    const bool alike = rank != peer && Within(rank, peer) == Within(rank_, peer);
    if (alike && rows_[rank][peer] > 0) return false;
  }
  return true;
}

std::vector<SlowLink> LinkRates::Slow() const {
  std::vector<SlowLink> slow;
  const int ranks = static_cast<int>(hosts_.size());
  for (int peer = 0; peer < ranks; ++peer) {
    const double rate = rows_[rank_][peer];
    if (peer == rank_ || !heavy_[peer] || rate == 0) continue;
    Links ours, to_peer, from_peer;
    for (int other = 0; other < ranks; ++other) {
      if (other != peer) ours.emplace_back(rank_, other);
      if (other != rank_) to_peer.emplace_back(other, peer);
      from_peer.emplace_back(peer, other);
    }
    const std::vector<double> mine = RatesOf(peer, ours), to = RatesOf(peer, to_peer),
                              from = RatesOf(peer, from_peer);
    if (mine.empty() || to.empty()) continue;
    // Of an even number the upper one: one fast link of two shows what can be.
    const double others = mine[mine.size() / 2];
    const auto is_slow = [&](double one) { return kSlower * one < others; };
    if (!is_slow(rate)) continue;
    // The lower one: where half of the links to a rank are slow, it may be late to read those.
    const bool alone = kSlower * rate < to[(to.size() - 1) / 2];
    const bool every = !from.empty() && is_slow(to.back()) && is_slow(from.back());
    if (!alone && !(every && SpeaksOf(peer))) continue;
    slow.push_back({rank_, peer, !alone, rate * kBytesPerUnit, others * kBytesPerUnit});
  }
  std::stable_sort(slow.begin(), slow.end(),
                   [](const SlowLink& a, const SlowLink& b) { return a.rate < b.rate; });
  slow.resize(std::min(slow.size(), kMostTold));
  return slow;
}

}  // namespace lepton::collectives
