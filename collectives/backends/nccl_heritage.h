// What a rank holds of the communicator of a group that broke, for a next group of nobody but its
// survivors: they can shrink it (ncclCommShrink) instead of making a new one. All or none must, so
// each says in its address what it holds, and all find the same in the list of addresses. Empty in
// a build without NCCL. Threads: one at a time.
#pragma once

#ifdef LEPTON_HAS_NCCL

#include <string>
#include <vector>

#include "collectives/backends/nccl_endings.h"

namespace lepton::collectives {

// This NCCL has ncclCommShrink, and one that is not known to hang (2.28.3 to 2.28.8 are);
// LEPTON_NCCL_SHRINK=0 in the environment: it is not used. Nor where TrustShrinks said so.
bool MayShrink();
// False where one failed by itself: this process asks for no further, each of which would cost its
// gang a second meeting. Any thread.
void TrustShrinks(bool trusted);

struct NcclHeritage {
  NcclBelongings own;
  std::string name;  // of the communicator: equal on all of its ranks, and no other's
  int rank = 0, size = 0;

  NcclHeritage() = default;
  NcclHeritage(const NcclHeritage&) = delete;
  NcclHeritage& operator=(const NcclHeritage&) = delete;
  ~NcclHeritage();  // aborts it, unless it was taken

  // For MemberAddress::place.
  std::string Encode() const;
};

// What the members of a next group hold, by rank, as Encode() gave it (empty: nothing). Which old
// ranks are not among them, if it can be made by leaving these out; empty: it cannot.
std::vector<int> RanksToExclude(const std::vector<std::string>& heritages);

}  // namespace lepton::collectives

#endif
