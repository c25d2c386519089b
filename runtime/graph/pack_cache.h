// Packed copies of weights, shared by all plans of an executor: a second batch size costs no second
// copy. Or, where copies are to cost no memory, one place that all share, in which each kernel
// packs right before it runs. Ownership: packs live as long as a kernel holds one. Threads: one
// caller.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "runtime/graph/op.h"
#include "runtime/tensor/buffer.h"

namespace lepton::graph {

struct Pack {
  Buffer data;
  uint64_t version = 0;  // KernelContext::version() of what is packed; 0: nothing is
};

class PackCache {
 public:
  explicit PackCache(bool transient = false) : transient_(transient) {}
  // `layout` says how the value is packed: equal text, equal bytes.
  std::shared_ptr<Pack> Get(ValueId value, const std::string& layout, size_t bytes) {
    std::weak_ptr<Pack>& known = packs_[transient_ ? Key() : Key(value, layout)];
    std::shared_ptr<Pack> pack = known.lock();
    if (pack == nullptr) known = pack = std::make_shared<Pack>(Pack{Buffer(bytes)});
    if (pack->data.size() < bytes) *pack = {Buffer(bytes)};
    return pack;
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
  using Key = std::pair<ValueId, std::string>;
  const bool transient_;
  std::map<Key, std::weak_ptr<Pack>> packs_;
};

}  // namespace lepton::graph
