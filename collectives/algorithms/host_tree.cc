#include "collectives/algorithms/host_tree.h"

#include <algorithm>
#include <map>

namespace lepton::collectives {
namespace {

class Builder {
 public:
  Builder(const std::vector<int>& splits, const std::vector<int>& hosts, HostTree* tree)
      : splits_(splits), hosts_(hosts), tree_(tree) {}

  // The subtree over ranks [low, high), whose first split is at `node`. Returns its units.
  int Add(int low, int high, size_t node) {
    const int host = hosts_[low];
    const bool whole = std::all_of(hosts_.begin() + low, hosts_.begin() + high,
                                   [host](int other) { return other == host; });
    if (whole) {
      const auto first = splits_.begin() + static_cast<std::ptrdiff_t>(node);
      tree_->units_of[host].push_back(static_cast<int>(tree_->units.size()));
      tree_->units.push_back({host, low, {first, first + (high - low - 1)}});
      return 1;
    }
    const int left = splits_[node];
    const size_t place = tree_->splits.size();
    tree_->splits.push_back(0);
    const int on_the_left = Add(low, low + left, node + 1);
    tree_->splits[place] = on_the_left;
    return on_the_left + Add(low + left, high, node + static_cast<size_t>(left));
  }

 private:
  const std::vector<int>& splits_;
  const std::vector<int>& hosts_;
  HostTree* const tree_;
};

}  // namespace

int HostTree::most_ranks() const {
  size_t most = 0;
  for (const auto& ranks : ranks_of) most = std::max(most, ranks.size());
  return static_cast<int>(most);
}

int HostTree::IndexOf(int rank) const {
  const std::vector<int>& ranks = ranks_of[HostOf(rank)];
  return static_cast<int>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
}

double HostTree::SentByRanks() const {
  double all = 0, most = 0;
  for (const auto& ranks : ranks_of) all += static_cast<double>(ranks.size());
  for (const auto& ranks : ranks_of) {
    const auto here = static_cast<double>(ranks.size());
    most = std::max(most, 2 * here * (all - here) / all);
  }
  return most;
}

double HostTree::SentByUnits(double widening) const {
  size_t most = 0;
  for (const auto& of_host : units_of) most = std::max(most, of_host.size());
  const auto hosts_count = static_cast<double>(hosts());
  return (static_cast<double>(most) * widening + 1) * (hosts_count - 1) / hosts_count;
}

double HostTree::ScatteredByUnits(double widening) const {
  const auto all = static_cast<double>(host_of.size());
  double most = 0;
  for (size_t host = 0; host < ranks_of.size(); ++host) {
    const double others = all - static_cast<double>(ranks_of[host].size());
    most = std::max(most, static_cast<double>(units_of[host].size()) * widening * others / all);
  }
  return most;
}

HostTree MakeHostTree(const std::vector<int>& splits, const std::vector<int>& hosts) {
  HostTree tree;
  std::map<int, int> numbers;
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    const int host =
        numbers.try_emplace(hosts[rank], static_cast<int>(numbers.size())).first->second;
    if (host == tree.hosts()) tree.ranks_of.emplace_back();
    tree.ranks_of[host].push_back(static_cast<int>(rank));
    tree.host_of.push_back(host);
  }
  tree.units_of.resize(tree.ranks_of.size());
  Builder(splits, tree.host_of, &tree).Add(0, static_cast<int>(hosts.size()), 0);
  return tree;
}

}  // namespace lepton::collectives
