// What copies without adding, over links, and the barrier.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "collectives/algorithms/link_algorithms.h"

namespace lepton::collectives {

Status ExchangeAllGather(Group& group, const Call& call, Deadline deadline) {
  const size_t bytes = call.bytes();
  char* out = static_cast<char*>(call.out);
  char* mine = out + static_cast<size_t>(group.rank) * bytes;
  if (bytes > 0 && mine != call.in) std::memmove(mine, call.in, bytes);
  std::vector<Transfer> transfers;
  for (int step = 1; step < group.size; ++step) {
    int to = (group.rank + step) % group.size;
    int from = (group.rank + group.size - step) % group.size;
    transfers.push_back(Transfer::Send(to, mine, bytes));
    transfers.push_back(Transfer::Recv(from, out + static_cast<size_t>(from) * bytes, bytes));
  }
  return group.mesh.Run(transfers, deadline);
}

// With ranks counted from the one that has it: rank r receives from r without its highest bit, then
// sends to r + 2^k for every 2^k above r.
Status BroadcastAmong(Group& group, const std::vector<int>& ranks, int source, void* data,
                      size_t bytes, Deadline deadline) {
  const auto n = static_cast<int>(ranks.size());
  const auto place_of = [&](int rank) {
    return static_cast<int>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
  };
  const int first = place_of(source), own = place_of(group.rank);
  if (own == n) return {};
  const int self = (own - first + n) % n;
  const auto real = [&](int r) { return ranks[static_cast<size_t>((r + first) % n)]; };
  int bit = 1;
  while (bit <= self) bit *= 2;
  if (self != 0) {
    Transfer receive = Transfer::Recv(real(self - bit / 2), data, bytes);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run({&receive, 1}, deadline));
  }
  for (; self + bit < n; bit *= 2) {
    Transfer send = Transfer::Send(real(self + bit), data, bytes);
    LEPTON_RETURN_IF_ERROR(group.mesh.Run({&send, 1}, deadline));
  }
  return {};
}

Status BinomialBroadcast(Group& group, const Call& call, Deadline deadline) {
  std::vector<int> ranks(static_cast<size_t>(group.size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return BroadcastAmong(group, ranks, call.root, call.out, call.bytes(), deadline);
}

namespace {

// A rank's own part, which may be where it belongs.
void CopyOwn(void* to, const void* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

}  // namespace

Status DirectGather(Group& group, const Call& call, Deadline deadline) {
  const size_t bytes = call.bytes();
  if (group.rank != call.root) {
    Transfer send = Transfer::Send(call.root, call.in, bytes);
    return group.mesh.Run({&send, 1}, deadline);
  }
  char* const out = static_cast<char*>(call.out);
  CopyOwn(out + static_cast<size_t>(group.rank) * bytes, call.in, bytes);
  std::vector<Transfer> transfers;
  for (int from = 0; from < group.size; ++from) {
    if (from == group.rank) continue;
    transfers.push_back(Transfer::Recv(from, out + static_cast<size_t>(from) * bytes, bytes));
  }
  return group.mesh.Run(transfers, deadline);
}

Status DirectScatter(Group& group, const Call& call, Deadline deadline) {
  const size_t bytes = call.bytes();
  if (group.rank != call.root) {
    Transfer receive = Transfer::Recv(call.root, call.out, bytes);
    return group.mesh.Run({&receive, 1}, deadline);
  }
  const char* const in = static_cast<const char*>(call.in);
  std::vector<Transfer> transfers;
  for (int to = 0; to < group.size; ++to) {
    if (to == group.rank) continue;
    transfers.push_back(Transfer::Send(to, in + static_cast<size_t>(to) * bytes, bytes));
  }
  const Status status = group.mesh.Run(transfers, deadline);
  CopyOwn(call.out, in + static_cast<size_t>(group.rank) * bytes, bytes);
  return status;
}

Status DirectAllToAll(Group& group, const Call& call, Deadline deadline) {
  const size_t bytes = call.bytes();
  const char* const in = static_cast<const char*>(call.in);
  char* const out = static_cast<char*>(call.out);
  const size_t own = static_cast<size_t>(group.rank) * bytes;
  CopyOwn(out + own, in + own, bytes);
  std::vector<Transfer> transfers;
  for (int step = 1; step < group.size; ++step) {
    const int to = (group.rank + step) % group.size;
    const int from = (group.rank + group.size - step) % group.size;
    transfers.push_back(Transfer::Send(to, in + static_cast<size_t>(to) * bytes, bytes));
    transfers.push_back(Transfer::Recv(from, out + static_cast<size_t>(from) * bytes, bytes));
  }
  return group.mesh.Run(transfers, deadline);
}

Status DisseminationBarrier(Group& group, const Call&, Deadline deadline) {
  for (int distance = 1; distance < group.size; distance *= 2) {
    char out = 1;
    char in = 0;
    Transfer transfers[] = {
        Transfer::Send((group.rank + distance) % group.size, &out, 1),
        Transfer::Recv((group.rank + group.size - distance) % group.size, &in, 1)};
    LEPTON_RETURN_IF_ERROR(group.mesh.Run(transfers, deadline));
  }
  return {};
}

}  // namespace lepton::collectives
