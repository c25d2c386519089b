#include "worker/train/divergence.h"

#include <algorithm>
#include <numeric>

#include "worker/train/parameter_digest.h"

namespace lepton::worker {

bool Census::IsOdd(int rank) const {
  return std::find(odd.begin(), odd.end(), rank) != odd.end();
}

Census CountDigests(std::span<const uint64_t> digests, std::span<const int> counted) {
  std::vector<int> ranks(counted.begin(), counted.end());
  if (ranks.empty()) {
    ranks.resize(digests.size());
    std::iota(ranks.begin(), ranks.end(), 0);
  }
  const auto holders = [&](uint64_t digest) {
    return std::count_if(ranks.begin(), ranks.end(), [&](int r) { return digests[r] == digest; });
  };
  Census census;
  census.right = ranks[0];
  const auto all = static_cast<std::ptrdiff_t>(ranks.size());
  if (holders(digests[ranks[0]]) == all) {
    census.agreeing = static_cast<int>(all);
    return census;
  }
  const auto common = std::find_if(ranks.begin(), ranks.end(),
                                   [&](int r) { return 2 * holders(digests[r]) > all; });
  if (common == ranks.end()) {
    census.odd = ranks;
    return census;
  }
  census.right = *common;
  const uint64_t right = digests[*common];
  census.agreeing = static_cast<int>(holders(right));
  std::copy_if(ranks.begin(), ranks.end(), std::back_inserter(census.odd),
               [&](int r) { return digests[r] != right; });
  return census;
}

Result<std::string> FindTensor(const Census& census, nn::TrainingProgram& program,
                               collectives::Communicator& gang) {
  const std::vector<nn::ParameterView>& parameters = program.parameters();
  const std::span<const float> weights = program.weights();
  std::vector<int64_t> mine, all(parameters.size() * static_cast<size_t>(gang.size()));
  for (const nn::ParameterView& one : parameters) {
    const int64_t at = one.offset - program.weights_begin();
    const std::span<const float> values =
        at < 0 ? std::span<const float>()
               : weights.subspan(static_cast<size_t>(at), static_cast<size_t>(one.size));
    mine.push_back(static_cast<int64_t>(DigestOf(values)));
  }
  LEPTON_RETURN_IF_ERROR(
      gang.AllGather(mine.data(), all.data(), mine.size(), collectives::DataType::kInt64)
          .WithContext("digests of each tensor"));
  for (size_t i = 0; i < parameters.size(); ++i) {
    for (const int odd : census.odd) {
      const auto of = [&](int rank) { return all[static_cast<size_t>(rank) * mine.size() + i]; };
      if (of(odd) != of(census.right)) return parameters[i].name;
    }
  }
  return std::string("no tensor any more");
}

}  // namespace lepton::worker
