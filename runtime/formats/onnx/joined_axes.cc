#include "runtime/formats/onnx/joined_axes.h"

#include <algorithm>
#include <numeric>

namespace lepton::onnx {
namespace {

// Neighbours whose extents are known, as one: they can be divided anywhere.
Ints Runs(const Ints& extents) {
  Ints runs;
  for (const int64_t extent : extents) {
    if (extent > 0 && !runs.empty() && runs.back() > 0) {
      runs.back() = Product({runs.back(), extent});
    } else {
      runs.push_back(extent);
    }
  }
  return runs;
}

// Takes factors from the front of `runs` until they are an axis of this size.
std::optional<Ints> TakeFactors(Size size, Ints& runs, size_t& at) {
  Ints factors;
  while (size.number > 1 || !size.open.empty()) {
    while (at < runs.size() && runs[at] == 1) ++at;
    if (at == runs.size()) return std::nullopt;
    int64_t& front = runs[at];
    if (front < 0) {
      const auto found = std::find(size.open.begin(), size.open.end(), front);
      if (found == size.open.end()) return std::nullopt;
      size.open.erase(found);
      factors.push_back(front);
      ++at;
      continue;
    }
    const int64_t taken = std::gcd(front, size.number);
    if (taken <= 1) return std::nullopt;
    front /= taken;
    size.number /= taken;
    if (!factors.empty() && factors.back() > 0) {
      factors.back() *= taken;
    } else {
      factors.push_back(taken);
    }
  }
  if (factors.empty()) factors.push_back(1);
  return factors;
}

}  // namespace

void FailJoined(const Shape& shape) {
  FailUnsupported("merging the open extents of " + shape.ToString() +
                  ": this would work along an axis that is one of them times others, where "
                  "rows of the batch could meet: view them apart before it");
}

Groups GroupsOf(const Builder& b, const Ref& ref) {
  if (ref.kind != HostValue::Kind::kTensor) return {};
  return ref.groups.empty() ? Groups(b.rank(ref.id), 1) : ref.groups;
}

bool IsJoined(const Groups& groups) {
  return std::any_of(groups.begin(), groups.end(), [](int factors) { return factors > 1; });
}

int FirstOf(const Groups& groups, int axis) {
  return std::accumulate(groups.begin(), groups.begin() + axis, 0);
}

std::vector<Size> SizesOf(const Builder& b, const Ref& ref) {
  std::vector<Size> sizes;
  int axis = 0;
  for (const int factors : GroupsOf(b, ref)) {
    Size& size = sizes.emplace_back();
    for (int i = 0; i < factors; ++i) {
      const int64_t extent = b.shape(ref.id)[axis++];
      if (extent < 0) size.open.push_back(extent);
      if (extent >= 0) size.number = Product({size.number, extent});
    }
    std::sort(size.open.begin(), size.open.end());
  }
  return sizes;
}

std::optional<View> ViewAs(const Ints& from, const std::vector<Size>& wanted) {
  Ints runs = Runs(from);
  size_t at = 0;
  View view;
  for (const Size& size : wanted) {
    const auto factors = TakeFactors(size, runs, at);
    if (!factors) return std::nullopt;
    view.extents.insert(view.extents.end(), factors->begin(), factors->end());
    view.groups.push_back(static_cast<int>(factors->size()));
  }
  while (at < runs.size() && runs[at] == 1) ++at;
  if (at < runs.size()) return std::nullopt;
  return view;
}

Ints FactorsOf(const Size& size) {
  Ints factors(size.open.rbegin(), size.open.rend());  // the batch before the sequence
  if (size.number != 1 || factors.empty()) factors.push_back(size.number);
  return factors;
}

namespace {

// Calls visit(axis counted from the last one, its factors) for each axis of the model.
template <typename Visit>
void EachAxis(const Builder& b, const Ref& ref, const Visit& visit) {
  const Groups groups = GroupsOf(b, ref);
  const int rank = static_cast<int>(groups.size());
  for (int axis = 0; axis < rank; ++axis) {
    const auto begin = b.shape(ref.id).extents().begin() + FirstOf(groups, axis);
    visit(static_cast<size_t>(rank - 1 - axis), Ints(begin, begin + groups[axis]));
  }
}

}  // namespace

Id Spread(Builder& b, const Ref& ref, const Groups& groups) {
  Ints extents;
  EachAxis(b, ref, [&](size_t from_last, const Ints& factors) {
    const auto wanted = static_cast<size_t>(groups[groups.size() - 1 - from_last]);
    if (factors.size() == wanted) {
      extents.insert(extents.end(), factors.begin(), factors.end());
    } else if (factors == Ints{1}) {
      extents.insert(extents.end(), wanted, 1);
    } else {
      FailJoined(b.shape(ref.id));
    }
  });
  return b.Reshape(ref.id, std::move(extents));
}

Groups Align(Builder& b, std::vector<Ref>& refs, int own) {
  std::vector<Ints> widest;  // the factors of each axis, counted from the last one
  const auto is_tensor = [](const Ref& ref) { return ref.kind == HostValue::Kind::kTensor; };
  for (const Ref& ref : refs) {
    if (!is_tensor(ref)) continue;
    EachAxis(b, ref, [&](size_t from_last, const Ints& factors) {
      if (from_last >= widest.size()) widest.resize(from_last + 1);
      Ints& most = widest[from_last];
      const bool alone = from_last < static_cast<size_t>(own);
      const bool differ = factors.size() > 1 && factors.size() == most.size() && factors != most;
      if (factors.size() > 1 && (alone || differ)) FailJoined(b.shape(ref.id));
      if (factors.size() > most.size()) most = factors;
    });
  }
  Groups groups;
  for (size_t i = widest.size(); i-- > 0;) groups.push_back(static_cast<int>(widest[i].size()));
  for (Ref& ref : refs) {
    if (!is_tensor(ref)) continue;
    ref.id = Spread(b, ref, groups);
    ref.groups.clear();
  }
  return groups;
}

}  // namespace lepton::onnx
