// Which links count as slow, by made-up figures of ranks that see their own links and tell the
// others.
#include "collectives/transport/link_rates.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <utility>

namespace lepton::collectives {
namespace {

constexpr double kMega = 1e6;

// What a link does in each second.
struct Does {
  double rate = 100 * kMega;  // while it has bytes, a second
  double busy = 0.02;         // the share of the time in which it has
  bool queued = false;
};
constexpr Does kSlow{0.5 * kMega, 0.95, true};

class Ranks {
 public:
  explicit Ranks(std::vector<int> hosts) : hosts_(std::move(hosts)) {
    for (size_t rank = 0; rank < hosts_.size(); ++rank) {
      rates_.emplace_back(static_cast<int>(rank), hosts_);
      looks_.emplace_back(hosts_.size());
    }
  }
  explicit Ranks(int size) : Ranks(std::vector<int>(static_cast<size_t>(size))) {}

  void Set(int from, int to, Does does) { does_[{from, to}] = does; }

  // One look of all, a second after the last.
  void Look() {
    now_ += std::chrono::seconds(1);
    std::vector<size_t> told;
    for (size_t rank = 0; rank < rates_.size(); ++rank) {
      for (size_t peer = 0; peer < rates_.size(); ++peer) {
        if (peer == rank) continue;
        const Does& does = does_[{static_cast<int>(rank), static_cast<int>(peer)}];
        LinkLook& look = looks_[rank][peer];
        look.bytes += static_cast<uint64_t>(does.rate * does.busy);
        look.busy += std::chrono::duration_cast<Duration>(std::chrono::duration<double>(does.busy));
        look.queued = does.queued;
      }
      if (rates_[rank].Look(looks_[rank], now_)) told.push_back(rank);
    }
    for (const size_t rank : told) {
      for (LinkRates& other : rates_) {
        other.SetRow(static_cast<int>(rank), rates_[rank].row());
      }
    }
  }
  void Window() {
    for (int i = 0; i < LinkRates::kWindow; ++i) Look();
  }
  LinkRates& rank(int rank) { return rates_[static_cast<size_t>(rank)]; }

  // "1>2 every>3": what all say.
  std::string Told() const {
    std::string told;
    for (const LinkRates& rates : rates_) {
      for (const SlowLink& link : rates.Slow()) {
        told += (told.empty() ? "" : " ") +
                (link.every ? std::string("every") : std::to_string(link.from)) + ">" +
                std::to_string(link.to);
      }
    }
    return told;
  }

 private:
  std::vector<int> hosts_;
  MonotonicTime now_{};
  std::map<std::pair<int, int>, Does> does_;
  std::vector<LinkRates> rates_;
  std::vector<std::vector<LinkLook>> looks_;
};

TEST(LinkRates, OneLinkIsNamedWithItsRateAndThatOfTheOthers) {
  Ranks ranks(3);
  ranks.Set(1, 2, kSlow);
  ranks.Window();
  ASSERT_EQ(ranks.Told(), "1>2");
  const SlowLink link = ranks.rank(1).Slow()[0];
  EXPECT_NEAR(link.rate, 0.5 * kMega, 0.01 * kMega);
  EXPECT_NEAR(link.others, 100 * kMega, kMega);
  ranks.Set(1, 2, {});  // and it is well again
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
}

TEST(LinkRates, BothWaysOfACableAreTwoLinks) {
  Ranks ranks(4);
  ranks.Set(1, 2, kSlow);
  ranks.Set(2, 1, kSlow);
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "1>2 2>1");
}

TEST(LinkRates, NothingIsSaidBeforeAWindowEnds) {
  Ranks ranks(3);
  ranks.Set(1, 2, kSlow);
  for (int i = 1; i < LinkRates::kWindow; ++i) ranks.Look();
  EXPECT_EQ(ranks.Told(), "");
  ranks.rank(1).Restart();  // it was frozen: its window begins anew
  ranks.Look();
  EXPECT_EQ(ranks.Told(), "");
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "1>2");
}

TEST(LinkRates, LinksThatAreAllAlikeAreNotSlow) {
  for (const double rate : {0.1 * kMega, 100 * kMega}) {
    Ranks ranks(4);
    for (int from = 0; from < 4; ++from) {
      for (int to = 0; to < 4; ++to) {
        // As different as chance makes them where ranks wait for cores.
        ranks.Set(from, to, {rate * (1 + (from + 2 * to) % 3), 0.9, true});
      }
    }
    ranks.Window();
    EXPECT_EQ(ranks.Told(), "") << rate;
  }
}

// What nobody reads is acknowledged late: all links to it look slow. What it sends is read at once.
TEST(LinkRates, ARankThatIsLateToReadIsNoSlowLink) {
  for (const int size : {3, 4, 8}) {
    Ranks ranks(size);
    for (int from = 0; from + 1 < size; ++from) ranks.Set(from, size - 1, kSlow);
    ranks.Window();
    EXPECT_EQ(ranks.Told(), "") << size;
  }
}

TEST(LinkRates, RanksThatAreLateToReadAreNoSlowLinksThoughTheyAreHalfOfAll) {
  for (const int half : {2, 3, 4}) {
    Ranks ranks(2 * half);
    for (int early = 0; early < half; ++early) {
      for (int late = half; late < 2 * half; ++late) ranks.Set(early, late, kSlow);
    }
    ranks.Window();
    EXPECT_EQ(ranks.Told(), "") << half;
  }
}

// Between them everything is slow, which is no rank's cable, nor one of many links to be told of.
TEST(LinkRates, TwoSitesAreNotToldLinkByLink) {
  for (const auto& [here, there] : {std::pair{3, 2}, {2, 2}, {8, 8}, {8, 7}}) {
    Ranks ranks(here + there);
    for (int a = 0; a < here; ++a) {
      for (int b = here; b < here + there; ++b) {
        ranks.Set(a, b, kSlow);
        ranks.Set(b, a, kSlow);
      }
    }
    ranks.Window();
    EXPECT_EQ(ranks.Told(), "") << here << "+" << there;
  }
}

TEST(LinkRates, ARankTellsOfItsThreeSlowestLinks) {
  Ranks ranks(12);
  for (int to = 1; to < 6; ++to) ranks.Set(0, to, {to * kMega, 0.95, true});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "0>1 0>2 0>3");
}

// Rank 0 and rank 1 have no link between hosts to each other.
TEST(LinkRates, TheCableOfAHostOfSeveralRanksIsNamedForEach) {
  Ranks ranks({0, 0, 1, 2});
  for (const int inside : {0, 1}) {
    for (const int outside : {2, 3}) {
      ranks.Set(inside, outside, kSlow);
      ranks.Set(outside, inside, kSlow);
    }
  }
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "every>0 every>1");
}

TEST(LinkRates, ARankWhoseLinksAreSlowBothWaysIsNamedOnce) {
  for (const int slow : {0, 1, 3}) {
    Ranks ranks(4);
    for (int other = 0; other < 4; ++other) {
      ranks.Set(other, slow, kSlow);
      ranks.Set(slow, other, kSlow);
    }
    ranks.Window();
    EXPECT_EQ(ranks.Told(), "every>" + std::to_string(slow));
  }
}

TEST(LinkRates, ALinkThatIsSeldomNeededOrNeverFullIsNotNamed) {
  Ranks ranks(3);
  ranks.Set(1, 2, {0.5 * kMega, 0.4, true});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
  // Small messages whose acknowledgements are put off.
  ranks.Set(1, 2, {0.5 * kMega, 0.95, false});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
}

TEST(LinkRates, AThirdOfTheOthersRateIsNotSlowAndAFifthIs) {
  Ranks ranks(3);
  ranks.Set(1, 2, {33 * kMega, 0.95, true});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
  ranks.Set(1, 2, {20 * kMega, 0.95, true});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "1>2");
}

TEST(LinkRates, OneThatHardlyMovesIsNamed) {
  Ranks ranks(3);
  ranks.Set(1, 2, {100, 1, true});
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "1>2");
}

TEST(LinkRates, WithOneLinkThereIsNothingToCompareItWith) {
  Ranks ranks(2);
  ranks.Set(0, 1, kSlow);
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
}

TEST(LinkRates, LinksWithinAHostAreNotComparedWithThoseBetweenHosts) {
  Ranks ranks({0, 0, 1});
  for (const auto& [from, to] : {std::pair{0, 2}, {2, 0}, {1, 2}, {2, 1}}) {
    ranks.Set(from, to, kSlow);
  }
  ranks.Window();
  EXPECT_EQ(ranks.Told(), "");
  Ranks more({0, 0, 1, 2});
  more.Set(0, 2, kSlow);
  more.Window();
  EXPECT_EQ(more.Told(), "0>2");
}

TEST(LinkRates, RowsThatDoNotFitAreLeftOut) {
  Ranks ranks(3);
  ranks.Set(1, 2, kSlow);
  ranks.Window();
  ranks.rank(1).SetRow(0, std::string(11, '\0'));
  ranks.rank(1).SetRow(7, ranks.rank(0).row());
  EXPECT_EQ(ranks.Told(), "1>2");
}

}  // namespace
}  // namespace lepton::collectives
