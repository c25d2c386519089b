// Attention over a cache, token by token and in larger steps: the bits of attention over the whole
// text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/cached_attention.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using graph::Attributes;
using graph::KernelEntry;

const KernelEntry& EntryOf(std::string_view op, DType dtype, std::string_view implementation) {
  for (const KernelEntry& entry : kernels::CpuKernels().entries()) {
    if (entry.op == op && entry.dtype == dtype && entry.implementation == implementation) {
      return entry;
    }
  }
  ADD_FAILURE() << "no such kernel: " << op << " " << implementation;
  return kernels::CpuKernels().entries().front();
}

struct Model {
  DType dtype;
  int64_t heads, kv_heads, size, window;
};

// Rows [begin, begin + count) of a text [1, all, columns], as [1, count, columns].
HostTensor RowsOf(HostTensor& text, int64_t begin, int64_t count) {
  const int64_t columns = text.type.shape[2];
  HostTensor rows = MakeTensor({text.type.dtype, {1, count, columns}});
  const auto bytes = columns * static_cast<int64_t>(DTypeSize(text.type.dtype));
  std::memcpy(rows.data.data(), text.data.as<char>() + begin * bytes, count * bytes);
  return rows;
}

// Texts of a batch, one below the other.
HostTensor Stack(HostTensor& a, HostTensor& b) {
  HostTensor both = MakeTensor({a.type.dtype, {2, a.type.shape[1], a.type.shape[2]}});
  std::memcpy(both.data.data(), a.data.data(), a.data.size());
  std::memcpy(both.data.as<char>() + a.data.size(), b.data.data(), a.data.size());
  return both;
}

class Texts {
 public:
  Texts(const Model& model, int64_t length, std::string_view implementation)
      : model_(model),
        length_(length),
        entry_(EntryOf("cached_attention", model.dtype, implementation)),
        attributes_{{"heads", model.heads},
                    {"kv_heads", model.kv_heads},
                    {"capacity", (length + 31) / 32 * 32},
                    {"window", model.window}} {
    const int64_t elements =
        ops::CacheElements(model.kv_heads, model.size, attributes_.Int("capacity"));
    cache_ = MakeTensor({model.dtype, {3, elements}});
    // Whatever was there before counts for nothing.
    for (int64_t i = 0; i < 3 * elements; ++i) {
      if (model.dtype == DType::kBF16) {
        cache_.data.as<uint16_t>()[i] = 0x7fff;
      } else {
        cache_.data.as<float>()[i] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    for (int text = 0; text < 2; ++text) {
      const auto rows = [&](int64_t heads, uint64_t seed) {
        return RandomTensor({model.dtype, {1, length, heads * model.size}}, seed, -1, 1);
      };
      q_[text] = rows(model.heads, 10 + text);
      k_[text] = rows(model.kv_heads, 20 + text);
      v_[text] = rows(model.kv_heads, 30 + text);
      OpCase whole = MakeCase("",
                              {{"heads", model.heads},
                               {"kv_heads", model.kv_heads},
                               {"causal", int64_t{1}},
                               {"window", model.window}},
                              {}, Copy(q_[text]), Copy(k_[text]), Copy(v_[text]));
      wanted_[text] =
          std::move(RunKernel(EntryOf("attention", model.dtype, "threaded"), whole, {}).front());
    }
  }

  int64_t left(int text) const { return length_ - lengths_[text]; }

  // The next `count` tokens of both texts, or of the one that has as many left.
  void Step(int64_t count) {
    HostTensor q[2], k[2], v[2];
    int32_t slots[2] = {2, 0};
    for (int text = 0; text < 2; ++text) {
      const int64_t begin = std::min(lengths_[text], length_ - count);
      q[text] = RowsOf(q_[text], begin, count);
      k[text] = RowsOf(k_[text], begin, count);
      v[text] = RowsOf(v_[text], begin, count);
      if (left(text) < count) slots[text] = -1;
    }
    HostTensor slot = MakeTensor({DType::kI32, {2}}), length = MakeTensor({DType::kI32, {2}});
    for (int text = 0; text < 2; ++text) {
      slot.data.as<int32_t>()[text] = slots[text];
      length.data.as<int32_t>()[text] = static_cast<int32_t>(lengths_[text]);
    }
    OpCase step =
        MakeCase("", attributes_, {}, Stack(q[0], q[1]), Stack(k[0], k[1]), Stack(v[0], v[1]),
                 std::move(slot), std::move(length), std::move(cache_));
    HostTensor y = std::move(RunKernel(entry_, step, {}).front());
    cache_ = std::move(step.inputs[5]);
    const auto bytes = static_cast<int64_t>(y.data.size()) / 2;
    for (int text = 0; text < 2; ++text) {
      if (slots[text] < 0) continue;
      HostTensor wanted = RowsOf(wanted_[text], lengths_[text], count);
      const char* got = y.data.as<char>() + text * bytes;
      EXPECT_EQ(std::memcmp(got, wanted.data.data(), bytes), 0)
          << "text " << text << ", " << count << " tokens behind " << lengths_[text];
      lengths_[text] += count;
    }
  }
  // So many tokens of one text only.
  void Lead(int text, int64_t count) {
    const int64_t other = lengths_[1 - text];
    lengths_[1 - text] = length_;
    Step(count);
    lengths_[1 - text] = other;
  }
  void Rewind(int64_t tokens) {
    for (int64_t& length : lengths_) length -= tokens;
  }

 private:
  const Model model_;
  const int64_t length_;
  const KernelEntry& entry_;
  const Attributes attributes_;
  HostTensor cache_, q_[2], k_[2], v_[2], wanted_[2];
  int64_t lengths_[2] = {0, 0};
};

void ExpectTheSameBits(const Model& model) {
  SCOPED_TRACE(std::string(DTypeName(model.dtype)) + " heads of " + std::to_string(model.size) +
               ", window " + std::to_string(model.window));
  constexpr int64_t kLength = 620;  // beyond two tiles
  Texts texts(model, kLength, "threaded");
  texts.Lead(0, 1);
  texts.Lead(1, 45);   // from the beginning, as blocks of queries
  texts.Lead(0, 150);  // behind something
  texts.Step(3);
  texts.Rewind(2);  // tokens that were not taken
  for (int i = 0; i < 70; ++i) texts.Step(1);
  texts.Step(33);
  while (texts.left(1) > 5) texts.Step(std::min<int64_t>(texts.left(1), 17));
  while (texts.left(1) > 0) texts.Step(1);
}

TEST(CachedAttention, GivesTheBitsOfTheWholeText) {
  const kernels::Bf16Sums native = kernels::CurrentBf16Sums();
  for (const int64_t window : {0, 100}) {
    for (const int64_t size : {64, 40}) {
      ExpectTheSameBits({DType::kF32, 6, 2, size, window});
      for (const auto sums : {kernels::Bf16Sums::kPairs, kernels::Bf16Sums::kTiles}) {
        kernels::SetBf16Sums(sums);
        ExpectTheSameBits({DType::kBF16, 6, 2, size, window});
      }
    }
  }
  kernels::SetBf16Sums(native);
  ExpectTheSameBits({DType::kF32, 3, 3, 5, 0});
}

// More rows of queries than a block has.
TEST(CachedAttention, ManyHeadsShareKeys) {
  ExpectTheSameBits({DType::kF32, 40, 1, 16, 0});
  ExpectTheSameBits({DType::kBF16, 40, 1, 16, 0});
}

}  // namespace
}  // namespace lepton::engine_test
