// A bounded cache from short words to their tokens: direct-mapped, 64 bytes a slot, 2 MiB in all;
// a newer word replaces an older one of the same slot. Threads: one caller at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace lepton::tokenizer {

class WordCache {
 public:
  static constexpr size_t kMaxWord = 27;
  static constexpr size_t kMaxTokens = 6;
  struct Slot {
    uint32_t ids[kMaxTokens];
    uint32_t hash;
    uint8_t lengths[kMaxTokens];  // bytes of the word that each token stands for
    uint8_t tokens;
    uint8_t size;  // of the word; 0: an empty slot
    char word[kMaxWord + 1];
  };
  static_assert(sizeof(Slot) == 64);

  // The slot of `word`, which has 1 to kMaxWord bytes; `hit` says whether it holds it.
  Slot& Find(std::string_view word, bool& hit) {
    if (slots_.empty()) slots_.resize(kSlots);
    uint64_t hash = Hash(word);
    Slot& slot = slots_[hash >> (64 - kSlotBits)];
    hit = slot.hash == static_cast<uint32_t>(hash) && slot.size == word.size() &&
          std::memcmp(slot.word, word.data(), word.size()) == 0;
    if (!hit) {
      slot.hash = static_cast<uint32_t>(hash);
      slot.size = 0;
    }
    return slot;
  }
  // Makes a missed slot hold `word`, once ids, lengths and tokens are filled in.
  static void Fill(Slot& slot, std::string_view word) {
    std::memcpy(slot.word, word.data(), word.size());
    slot.size = static_cast<uint8_t>(word.size());
  }

 private:
  static constexpr int kSlotBits = 15;
  static constexpr size_t kSlots = size_t{1} << kSlotBits;

  static uint64_t Hash(std::string_view word) {
    constexpr uint64_t kMix = 0x9E3779B97F4A7C15u;
    uint64_t hash = word.size() * kMix;
    const char* p = word.data();
    size_t left = word.size();
    for (; left >= 8; left -= 8, p += 8) {
      uint64_t block;
      std::memcpy(&block, p, 8);
      hash = (hash ^ block) * kMix;
      hash ^= hash >> 32;
    }
    uint64_t block = 0;
    for (size_t i = 0; i < left; ++i) block |= uint64_t{static_cast<uint8_t>(p[i])} << (8 * i);
    hash = (hash ^ block) * kMix;
    hash ^= hash >> 29;
    return hash * kMix;
  }

  std::vector<Slot> slots_;
};

}  // namespace lepton::tokenizer
