// The tokens of a model and their ids, and a trie over byte strings.
// Threads: immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lepton::tokenizer {

class Vocabulary {
 public:
  // Ids may have gaps. False when `id` has a token already; a token that comes twice keeps its last
  // id for lookups.
  bool Add(std::string_view token, uint32_t id);
  std::optional<uint32_t> Find(std::string_view token) const;
  // Empty optional for an id without a token. The view lives as long as the vocabulary.
  std::optional<std::string_view> Token(uint32_t id) const;
  // One more than the largest id.
  uint32_t size() const { return static_cast<uint32_t>(tokens_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::unordered_map<std::string, uint32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // keys of ids_, which stay where they are
};

// Finds the keys that a text starts with. Children of a node are adjacent and sorted.
class PrefixTrie {
 public:
  struct Key {
    std::string_view text;  // not empty; equal keys: the last one's value counts
    uint32_t value;
  };
  PrefixTrie() = default;
  explicit PrefixTrie(std::vector<Key> keys);
  bool empty() const { return nodes_.size() <= 1; }
  bool MayStartWith(char c) const { return first_[static_cast<uint8_t>(c)] != 0; }

  // found(length, value) for each key that `text` starts with, shortest first.
  template <typename Found>
  void ForEachPrefix(std::string_view text, Found found) const {
    if (empty()) return;
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = i == 0 ? first_[static_cast<uint8_t>(text[0])] : Child(node, text[i]);
      if (node == 0) return;
      if (nodes_[node].value >= 0) found(i + 1, static_cast<uint32_t>(nodes_[node].value));
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;
    uint8_t label = 0;
    int64_t value = -1;
  };
  uint32_t Child(uint32_t node, char c) const {
    uint32_t at = nodes_[node].first_child, end = at + nodes_[node].children;
    auto label = static_cast<uint8_t>(c);
    while (at < end) {
      uint32_t middle = at + (end - at) / 2;
      if (nodes_[middle].label == label) return middle;
      if (nodes_[middle].label < label) {
        at = middle + 1;
      } else {
        end = middle;
      }
    }
    return 0;
  }
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> first_{};
};

}  // namespace lepton::tokenizer
