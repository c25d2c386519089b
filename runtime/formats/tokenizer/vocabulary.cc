#include "runtime/formats/tokenizer/vocabulary.h"

#include <algorithm>

namespace lepton::tokenizer {

bool Vocabulary::Add(std::string_view token, uint32_t id) {
  if (id < tokens_.size() && tokens_[id]) return false;
  auto at = ids_.insert_or_assign(std::string(token), id).first;
  if (id >= tokens_.size()) tokens_.resize(size_t{id} + 1);
  tokens_[id] = &at->first;
  return true;
}

std::optional<uint32_t> Vocabulary::Find(std::string_view token) const {
  auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string_view> Vocabulary::Token(uint32_t id) const {
  if (id >= tokens_.size() || !tokens_[id]) return std::nullopt;
  return *tokens_[id];
}

PrefixTrie::PrefixTrie(std::vector<Key> keys) {
  std::stable_sort(keys.begin(), keys.end(),
                   [](const Key& a, const Key& b) { return a.text < b.text; });
  // Breadth first, so that the children of a node lie together: a range of keys that share `depth`
  // bytes belongs to one node.
  struct Range {
    size_t begin, end, depth;
    uint32_t node;
  };
  nodes_.emplace_back();
  std::vector<Range> queue = {{0, keys.size(), 0, 0}};
  for (size_t head = 0; head < queue.size(); ++head) {
    Range range = queue[head];
    size_t at = range.begin;
    for (; at < range.end && keys[at].text.size() == range.depth; ++at) {
      nodes_[range.node].value = keys[at].value;
    }
    nodes_[range.node].first_child = static_cast<uint32_t>(nodes_.size());
    while (at < range.end) {
      char label = keys[at].text[range.depth];
      size_t end = at;
      while (end < range.end && keys[end].text[range.depth] == label) ++end;
      auto child = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_.back().label = static_cast<uint8_t>(label);
      ++nodes_[range.node].children;
      if (range.depth == 0) first_[static_cast<uint8_t>(label)] = child;
      queue.push_back({at, end, range.depth + 1, child});
      at = end;
    }
  }
}

}  // namespace lepton::tokenizer
