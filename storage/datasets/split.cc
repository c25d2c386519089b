#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "storage/datasets/table.h"

namespace lepton::storage {
namespace {

constexpr int kParts = 3;  // train, validation, test
using Shares = std::array<double, kParts>;
using Quotas = std::array<int64_t, kParts>;

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and library.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // Uniform over [0, bound): Lemire 2019.
  uint64_t Below(uint64_t bound) {
    using Wide = unsigned __int128;
    Wide product = static_cast<Wide>(Next()) * bound;
    if (static_cast<uint64_t>(product) < bound) {
      const uint64_t threshold = -bound % bound;
      while (static_cast<uint64_t>(product) < threshold) {
        product = static_cast<Wide>(Next()) * bound;
      }
    }
    return static_cast<uint64_t>(product >> 64);
  }

 private:
  uint64_t state_;
};

std::vector<int64_t> Permutation(int64_t rows, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  SplitMix64 random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

Result<Shares> CheckShares(double train, double validation) {
  constexpr double kRounding = 1e-9;
  // Written so that NaN fails too.
  if (!(train >= 0 && train <= 1)) {
    return InvalidArgument("split.train: must be between 0 and 1");
  }
  if (!(validation >= 0 && validation <= 1)) {
    return InvalidArgument("split.validation: must be between 0 and 1");
  }
  double test = 1 - train - validation;
  if (test < -kRounding) {
    return InvalidArgument("split: train and validation are more than 1 together");
  }
  if (test < kRounding) test = 0;
  return Shares{train, validation, test};
}

// Hands out the rows of one class after another; `owed_` carries what rounding took from a part in
// earlier classes to later ones, so that the parts' totals match the shares.
class QuotaMaker {
 public:
  explicit QuotaMaker(const Shares& shares) : shares_(shares) {
    for (const double share : shares) parts_ += share > 0;
  }

  Quotas Next(int64_t rows) {
    Quotas quotas{};
    int64_t given = 0;
    const bool reaches_all = rows >= parts_;
    for (int p = 0; p < kParts; ++p) {
      const double ideal = static_cast<double>(rows) * shares_[p];
      owed_[p] += ideal;
      quotas[p] = static_cast<int64_t>(std::floor(ideal + 1e-9));
      if (reaches_all && shares_[p] > 0 && quotas[p] == 0) quotas[p] = 1;
      given += quotas[p];
    }
    if (!reaches_all && shares_[0] > 0 && quotas[0] == 0 && given < rows) ++quotas[0], ++given;
    for (; given < rows; ++given) ++quotas[MostOwed(quotas)];
    for (; given > rows; --given) --quotas[Largest(quotas)];
    for (int p = 0; p < kParts; ++p) owed_[p] -= static_cast<double>(quotas[p]);
    return quotas;
  }

 private:
  int MostOwed(const Quotas& quotas) const {
    int best = -1;
    double most = 0;
    for (int p = 0; p < kParts; ++p) {
      const double owed = owed_[p] - static_cast<double>(quotas[p]);
      if (shares_[p] > 0 && (best < 0 || owed > most + 1e-9)) best = p, most = owed;
    }
    return best;
  }
  static int Largest(const Quotas& quotas) {
    return static_cast<int>(std::max_element(quotas.begin(), quotas.end()) - quotas.begin());
  }

  const Shares shares_;
  Shares owed_{};
  int64_t parts_ = 0;
};

// With many classes of a row or two, all may have gone to train: gives each empty part one row of
// the largest class of the fullest part.
void FillEmptyParts(const Shares& shares, std::map<int32_t, Quotas>& quotas) {
  for (int p = 0; p < kParts; ++p) {
    Quotas totals{};
    for (const auto& [label, q] : quotas) {
      for (int i = 0; i < kParts; ++i) totals[i] += q[i];
    }
    if (shares[p] == 0 || totals[p] > 0) continue;
    const auto from = std::max_element(totals.begin(), totals.end()) - totals.begin();
    auto donor = quotas.begin();
    for (auto it = quotas.begin(); it != quotas.end(); ++it) {
      if (it->second[from] > donor->second[from]) donor = it;
    }
    --donor->second[from];
    ++donor->second[p];
  }
}

}  // namespace

Result<Split> SplitRows(int64_t rows, double train, double validation, uint64_t seed,
                        const std::vector<int32_t>* classes) {
  LEPTON_ASSIGN_OR_RETURN(const Shares shares, CheckShares(train, validation));
  const auto parts = kParts - std::count(shares.begin(), shares.end(), 0.0);
  if (rows < parts) {
    return InvalidArgument("split: " + std::to_string(rows) + " rows cannot fill " +
                           std::to_string(parts) + " parts");
  }
  if (classes != nullptr && static_cast<int64_t>(classes->size()) != rows) {
    return InvalidArgument("split: " + std::to_string(classes->size()) + " classes for " +
                           std::to_string(rows) + " rows");
  }
  const auto class_of = [&](int64_t row) { return classes == nullptr ? 0 : (*classes)[row]; };

  std::map<int32_t, int64_t> sizes;
  for (int64_t row = 0; row < rows; ++row) ++sizes[class_of(row)];
  std::map<int32_t, Quotas> left;
  QuotaMaker maker(shares);
  for (const auto& [label, size] : sizes) left[label] = maker.Next(size);
  FillEmptyParts(shares, left);

  Split split;
  std::vector<int64_t>* const lists[kParts] = {&split.train, &split.validation, &split.test};
  for (const int64_t row : Permutation(rows, seed)) {
    Quotas& quotas = left[class_of(row)];
    int p = 0;
    while (quotas[p] == 0) ++p;
    --quotas[p];
    lists[p]->push_back(row);
  }
  return split;
}

}  // namespace lepton::storage
