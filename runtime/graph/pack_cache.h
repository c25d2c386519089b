// Packed copies of weights, shared by all plans of an executor: a second batch size costs no second
// copy. Ownership: packs live as long as a kernel holds one. Threads: one caller.
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
  // `layout` says how the value is packed: equal text, equal bytes.
  std::shared_ptr<Pack> Get(ValueId value, const std::string& layout, size_t bytes) {
    std::weak_ptr<Pack>& known = packs_[{value, layout}];
    std::shared_ptr<Pack> pack = known.lock();
    if (pack == nullptr) known = pack = std::make_shared<Pack>(Pack{Buffer(bytes)});
    return pack;
  }

 private:
  std::map<std::pair<ValueId, std::string>, std::weak_ptr<Pack>> packs_;
};

}  // namespace lepton::graph
