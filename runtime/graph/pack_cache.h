// Packed copies of weights, shared by all plans of an executor: a second batch size costs no second
// copy. Or, where copies are to cost no memory, one place that all share, in which each kernel
// packs right before it runs. Ownership: packs live as long as a kernel holds one. Threads: one
// caller.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/op.h"
#include "runtime/tensor/buffer.h"

namespace lepton::graph {

struct Pack {
  Buffer data;
  uint64_t version = 0;  // of the parameters that are packed (Plan::RunPrologue); 0: none, or any
};

// By what the value is called, and how it is laid out.
class PackStore {
 public:
  std::weak_ptr<Pack>& operator[](const std::pair<ValueId, std::string>& key) {
    return packs_[key];
  }
  // Of all packs that somebody holds.
  size_t bytes() const {
    size_t sum = 0;
    for (const auto& [key, known] : packs_) {
      if (const std::shared_ptr<Pack> pack = known.lock()) sum += pack->data.size();
    }
    return sum;
  }

 private:
  std::map<std::pair<ValueId, std::string>, std::weak_ptr<Pack>> packs_;
};

class PackCache {
 public:
  explicit PackCache(bool transient = false)
      : transient_(transient), store_(std::make_shared<PackStore>()) {}
  // `layout` says how the value is packed: equal text, equal bytes.
  std::shared_ptr<Pack> Get(ValueId value, const std::string& layout, size_t bytes) {
    std::weak_ptr<Pack>& known = PlaceOf(value, layout);
    std::shared_ptr<Pack> pack = known.lock();
    if (pack == nullptr) known = pack = std::make_shared<Pack>(Pack{Buffer(bytes)});
    if (pack->data.size() < bytes) *pack = {Buffer(bytes)};
    return pack;
  }
  // Before the first Get: values of two graphs with the same name in `names` (by value, from 0 on;
  // kNoValue: it has none) are the same numbers, and so are their packs' versions. With `store`,
  // packs are shared with the others that have it.
  void Share(std::vector<ValueId> names, std::shared_ptr<PackStore> store = nullptr) {
    names_ = std::move(names);
    if (store != nullptr) store_ = std::move(store);
  }
  const std::shared_ptr<PackStore>& store() const { return store_; }
  size_t bytes() const { return own_.bytes() + store_->bytes(); }

 private:
  std::weak_ptr<Pack>& PlaceOf(ValueId value, const std::string& layout) {
    if (transient_) return own_[{}];
    const auto index = static_cast<size_t>(value);
    const bool named = index < names_.size() && names_[index] != kNoValue;
    return named ? (*store_)[{names_[index], layout}] : own_[{value, layout}];
  }

  const bool transient_;
  PackStore own_;  // of values without a name
  std::vector<ValueId> names_;
  std::shared_ptr<PackStore> store_;
};

}  // namespace lepton::graph
