// Which of a group's links are slow: they, and not the ranks at their ends.
//
// The sender's kernel knows how long a link had bytes that the other side had not acknowledged,
// without the time in which the receiver had no room for more. What was acknowledged in that time
// is the link's rate. A rank that computes, waits or has stopped makes its links idle or full, not
// slow; but kernels acknowledge late what nobody reads, so a rank that is late to every call looks
// as if all links to it were slow. Hence ranks tell each other their links' rates, and a link
// counts as slow only when it is so beside its sender's others and beside the receiver's others:
//
//   a -> b is slow     it had bytes under way for half of a window, at less than a quarter of the
//                      median of what a's other links give, and of what others' links to b give;
//                      where half of those are slow, b may be late to read, and nothing is said
//   all of b's are     as above, but all links to b and all from b are slow: its cable, or its card
//
// Only links of a kind are compared: those to ranks of the same host, or those to others. With one
// such link there is nothing to compare it with.
// Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/clock.h"

namespace lepton::collectives {

// What the kernel has seen of the way to a peer since it was connected; zeros: it does not tell.
struct LinkLook {
  uint64_t bytes = 0;   // that the peer's kernel has acknowledged
  Duration busy{};      // in which some were not, though it had room for them
  bool queued = false;  // now: more wait than an acknowledgement that is put off explains
};

class LinkRates {
 public:
  // Looks in a window: of two recovery budgets, at five looks in a link time-out.
  static constexpr int kWindow = 40;

  // `hosts`: by rank, a number for each host.
  LinkRates(int rank, std::vector<int> hosts);

  // By rank; called once a pulse. True when a window ends: row() is to be told to the others, and
  // Slow() is of this window.
  bool Look(const std::vector<LinkLook>& looks, MonotonicTime now);
  // The window begins anew: this process stood still.
  void Restart();

  // This rank's links of the last window, as bytes: FORMAT.md, "Control connections".
  std::string row() const;
  // Another's; what does not fit this group is left out.
  void SetRow(int rank, std::string_view row);

  // Those of this rank that were slow in the last window. Where all links of one peer are, the
  // first rank that has such a link to it says so, and nobody else. The three slowest at most.
  std::vector<SlowLink> Slow() const;

 private:
  using Links = std::vector<std::pair<int, int>>;  // from, to
  bool Within(int a, int b) const { return hosts_[a] == hosts_[b]; }
  // Known ones of those of `links` that are of the kind of this rank's link to `peer`, sorted.
  std::vector<double> RatesOf(int peer, const Links& links) const;
  // No rank before this one has a link of that kind to it, of which a rate is known.
  bool SpeaksOf(int peer) const;

  const int rank_;
  const std::vector<int> hosts_;
  int looks_ = 0;
  MonotonicTime began_{};
  std::vector<LinkLook> first_;              // of the window
  std::vector<int> queued_;                  // in how many looks, by rank
  std::vector<bool> heavy_;                  // in the last window: it had bytes under way for half
  std::vector<std::vector<uint32_t>> rows_;  // KB/s by sender and receiver; 0: not known
};

}  // namespace lepton::collectives
