#include "scheduler/core/shard_deal.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

namespace lepton::scheduler {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class Dealer {
 public:
  Dealer(int64_t now_ms, int64_t late_ms, std::vector<ShardHand>& hands)
      : now_ms_(now_ms), late_ms_(late_ms), hands_(hands) {
    for (size_t i = 0; i < hands_.size(); ++i) {
      if (!hands_[i].leaving) staying_.push_back(i);
    }
  }

  // Those that leave keep what they have begun.
  void TakeFromLeavers() {
    if (staying_.empty()) return;
    for (size_t i = 0; i < hands_.size(); ++i) {
      ShardHand& hand = hands_[i];
      if (!hand.leaving || hand.shards.size() < 2) continue;
      hand.shards.resize(1);
      changed_.insert(i);
    }
  }

  void GiveLoose(const std::vector<uint32_t>& undone) {
    if (staying_.empty()) return;
    std::set<uint32_t> held;
    for (const ShardHand& hand : hands_) held.insert(hand.shards.begin(), hand.shards.end());
    std::vector<uint32_t> loose;
    std::set_difference(undone.begin(), undone.end(), held.begin(), held.end(),
                        std::back_inserter(loose));
    // The level up to which all of them fill the hands; neighbours stay together.
    const auto level = Level(loose.size());
    auto next = loose.begin();
    for (const size_t i : staying_) {
      ShardHand& hand = hands_[i];
      while (next != loose.end() && hand.shards.size() < level) Give(i, *next++);
    }
  }

  void FeedIdle() {
    for (const size_t i : staying_) {
      if (hands_[i].shards.empty() && !Steal(i)) Double(i);
    }
  }

  ShardDeal Result() {
    for (const size_t i : changed_) deal_.changed.push_back(hands_[i].seat);
    return std::move(deal_);
  }

 private:
  size_t Level(size_t loose) const {
    std::vector<size_t> sizes;
    for (const size_t i : staying_) sizes.push_back(hands_[i].shards.size());
    std::sort(sizes.begin(), sizes.end());
    size_t below = 0, level = 0;
    for (size_t n = 1; n <= sizes.size(); ++n) {
      below += sizes[n - 1];
      level = (below + loose + n - 1) / n;
      if (n == sizes.size() || level <= sizes[n]) break;
    }
    return level;
  }

  void Give(size_t to, uint32_t shard) {
    if (hands_[to].shards.empty()) hands_[to].since_ms = now_ms_;
    hands_[to].shards.push_back(shard);
    changed_.insert(to);
  }

  bool Steal(size_t thief) {
    size_t richest = thief;
    for (const size_t i : staying_) {
      if (hands_[i].shards.size() > hands_[richest].shards.size()) richest = i;
    }
    std::vector<uint32_t>& from = hands_[richest].shards;
    if (from.size() < 2) return false;
    const size_t kept = (from.size() + 1) / 2;
    for (size_t i = kept; i < from.size(); ++i) Give(thief, from[i]);
    from.resize(kept);
    changed_.insert(richest);
    return true;
  }

  void Double(size_t idle) {
    struct InProgress {
      int ranks = 0;
      int64_t since_ms = kNever;
    };
    std::map<uint32_t, InProgress> shards;
    for (const ShardHand& hand : hands_) {
      if (hand.shards.empty()) continue;
      InProgress& one = shards[hand.shards.front()];
      ++one.ranks;
      one.since_ms = std::min(one.since_ms, hand.since_ms);
    }
    const auto later = [](const auto& a, const auto& b) {
      return std::pair(a.second.ranks, a.second.since_ms) <
             std::pair(b.second.ranks, b.second.since_ms);
    };
    std::erase_if(shards, [&](const auto& one) {
      return late_ms_ == kNever || now_ms_ - one.second.since_ms < late_ms_;
    });
    if (shards.empty()) return;
    const uint32_t shard = std::min_element(shards.begin(), shards.end(), later)->first;
    Give(idle, shard);
    deal_.late.push_back(shard);
  }

  const int64_t now_ms_, late_ms_;
  std::vector<ShardHand>& hands_;
  std::vector<size_t> staying_;
  std::set<size_t> changed_;
  ShardDeal deal_;
};

}  // namespace

int64_t ShardLatenessMs(std::vector<int64_t> took_ms) {
  if (took_ms.empty()) return kNever;
  const auto middle = took_ms.begin() + static_cast<ptrdiff_t>(took_ms.size() / 2);
  std::nth_element(took_ms.begin(), middle, took_ms.end());
  return *middle + *middle / 2 + 1;
}

ShardDeal DealShards(const std::vector<uint32_t>& undone, int64_t now_ms, int64_t late_ms,
                     std::vector<ShardHand>* hands) {
  Dealer dealer(now_ms, late_ms, *hands);
  dealer.TakeFromLeavers();
  dealer.GiveLoose(undone);
  dealer.FeedIdle();
  return dealer.Result();
}

int64_t NextLateMs(const std::vector<ShardHand>& hands, int64_t now_ms, int64_t late_ms) {
  const bool idle = std::any_of(hands.begin(), hands.end(), [](const ShardHand& hand) {
    return !hand.leaving && hand.shards.empty();
  });
  int64_t next = kNever;
  if (!idle || late_ms == kNever) return next;
  for (const ShardHand& hand : hands) {
    if (hand.shards.empty() || hand.since_ms + late_ms <= now_ms) continue;
    next = std::min(next, hand.since_ms + late_ms);
  }
  return next;
}

}  // namespace lepton::scheduler
