#include "collectives/split.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

namespace lepton::collectives {
namespace {

constexpr size_t kSplitAddressBytes = 1024;

// What a rank tells the others: where it listens, and for whom.
struct SplitPlace {
  int32_t color = -1;
  uint32_t size = 0;
  char address[kSplitAddressBytes] = {};
};

using Token = std::array<unsigned char, 16>;

// A secret of the parent's ranks, made by the first.
Result<Token> ShareToken(Communicator& parent) {
  Token token{};
  if (parent.rank() == 0) {
    std::random_device random;
    for (unsigned char& byte : token) byte = static_cast<unsigned char>(random());
  }
  LEPTON_RETURN_IF_ERROR(parent.Broadcast(token.data(), token.size(), DataType::kUInt8, 0));
  return token;
}

}  // namespace

Result<std::unique_ptr<Communicator>> Split(Communicator& parent, int color,
                                            const std::string& bind_address, const Options& options,
                                            Deadline deadline, int leaves) {
  LEPTON_ASSIGN_OR_RETURN(const Backend* const backend, FindBackend(parent.backend()));
  LEPTON_ASSIGN_OR_RETURN(const Token token, ShareToken(parent));
  SplitPlace mine;
  mine.color = color < 0 ? -1 : color;
  std::unique_ptr<Endpoint> endpoint;
  Status listening;
  if (color >= 0) {
    auto listened = backend->Listen(bind_address);
    listening = listened.status();
    if (listened.ok()) endpoint = *std::move(listened);
    const std::string address = endpoint == nullptr ? "" : endpoint->address();
    if (address.size() > kSplitAddressBytes)
      listening = Internal("an endpoint's address is too long");
    if (listening.ok()) {
      mine.size = static_cast<uint32_t>(address.size());
      std::memcpy(mine.address, address.data(), address.size());
    }
  }
  std::vector<SplitPlace> places(static_cast<size_t>(parent.size()));
  LEPTON_RETURN_IF_ERROR(
      parent.AllGather(&mine, places.data(), sizeof(SplitPlace), DataType::kUInt8));
  if (color < 0) return std::unique_ptr<Communicator>();
  LEPTON_RETURN_IF_ERROR(listening);
  GroupSpec group;
  group.size = 0;
  group.leaves = leaves;
  group.token.assign(token.begin(), token.end());
  // Groups of one parent must not take each other for their own.
  group.epoch = static_cast<uint64_t>(color) + 1;
  for (int rank = 0; rank < parent.size(); ++rank) {
    const SplitPlace& place = places[static_cast<size_t>(rank)];
    if (place.color != color) continue;
    if (rank == parent.rank()) group.rank = group.size;
    if (place.size == 0) return Unavailable("rank " + std::to_string(rank) + " could not listen");
    ++group.size;
    group.members.emplace_back(place.address, std::min<size_t>(place.size, kSplitAddressBytes));
  }
  return backend->Join(std::move(endpoint), group, options, deadline);
}

}  // namespace lepton::collectives
