// Cases of the ops of transformers.
#include <algorithm>

#include "runtime/ops/cached_attention.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

using graph::Attributes;

void AddAttention(bool gradient, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  // Beyond one tile of queries and keys for the larger sizes.
  const int64_t queries = std::min<int64_t>(rows, 150);
  const int64_t size = std::min<int64_t>(n, 40);
  struct Variant {
    const char* label;
    int64_t more_keys;
    Attributes attributes;
    bool bias;
  };
  const Variant variants[] = {
      {"full", 2, {}, false},
      {"causal", 0, {{"causal", int64_t{1}}, {"scale", 0.4}}, false},
      {"causal after a prefix", 70, {{"causal", int64_t{1}}}, false},
      {"window", 3, {{"causal", int64_t{1}}, {"window", int64_t{3}}}, false},
      {"padding", 3, {}, true},
  };
  for (const Variant& variant : variants) {
    if (variant.more_keys > 10 && rows < 30) continue;
    const int64_t keys = queries + variant.more_keys;
    const Shape q({2, queries, 4 * size});
    const Shape kv({2, keys, 2 * size});
    Attributes attributes = variant.attributes;
    attributes.Set("heads", int64_t{4});
    attributes.Set("kv_heads", int64_t{2});
    OpCase op_case = MakeCase(variant.label, attributes, {0, 1, 2}, RandomTensor(F32(q), 51, -1, 1),
                              RandomTensor(F32(kv), 52, -1, 1), RandomTensor(F32(kv), 53, -1, 1));
    HostTensor bias = RandomTensor(F32({2, keys}), 54, -2, 2);
    bias.floats()[1] = -1e9f;
    if (gradient) {
      op_case.with_gradient.clear();
      op_case.inputs.push_back(RandomTensor(F32(q), 55, -1, 1));
      // Large enough for probabilities of about 1 and less.
      op_case.inputs.push_back(RandomTensor(F32({2, 4, queries}), 56, 3, 6));
      op_case.inputs.push_back(RandomTensor(F32(q), 57, -1, 1));
    }
    if (variant.bias) op_case.inputs.push_back(std::move(bias));
    cases.push_back(std::move(op_case));
  }
}

void AddPackedAttention(bool gradient, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t queries = std::min<int64_t>(rows, 150);
  const int64_t size = std::min<int64_t>(n, 40);
  struct Variant {
    const char* label;
    int64_t kv_heads;
    Attributes attributes;
    bool bias;
  };
  const Variant variants[] = {
      {"full", 4, {}, false},
      {"causal, shared keys", 2, {{"causal", int64_t{1}}, {"scale", 0.4}}, false},
      {"window", 4, {{"causal", int64_t{1}}, {"window", int64_t{3}}}, false},
      {"padding", 1, {}, true},
  };
  for (const Variant& variant : variants) {
    const Shape qkv({2, queries, (4 + 2 * variant.kv_heads) * size});
    const Shape y({2, queries, 4 * size});
    Attributes attributes = variant.attributes;
    attributes.Set("heads", int64_t{4});
    attributes.Set("kv_heads", variant.kv_heads);
    OpCase op_case = MakeCase(variant.label, attributes, {0}, RandomTensor(F32(qkv), 81, -1, 1));
    if (gradient) {
      op_case.with_gradient.clear();
      op_case.inputs.push_back(RandomTensor(F32(y), 85, -1, 1));
      op_case.inputs.push_back(RandomTensor(F32({2, 4, queries}), 86, 3, 6));
      op_case.inputs.push_back(RandomTensor(F32(y), 87, -1, 1));
    }
    if (variant.bias) {
      op_case.inputs.push_back(RandomTensor(F32({2, queries}), 84, -2, 2));
      // Not the only key of a row: of nothing but padding no slope can be measured.
      if (queries > 1) op_case.inputs.back().floats()[1] = -1e9f;
    }
    cases.push_back(std::move(op_case));
  }
}

// Texts that begin: how a kernel lays the cache out is its own, so no case can have one that is
// filled. What is behind a beginning, cached_attention_test.cc has.
void AddCachedAttention(int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t queries = std::min<int64_t>(rows, 150);
  const int64_t size = std::min<int64_t>(n, 40);
  const int64_t capacity = (queries + 31) / 32 * 32;
  for (const int64_t window : {0, 3}) {
    const Attributes attributes{{"heads", int64_t{4}},
                                {"kv_heads", int64_t{2}},
                                {"capacity", capacity},
                                {"window", window}};
    OpCase op_case =
        MakeCase(window == 0 ? "whole" : "window", attributes, {},
                 RandomTensor(F32({3, queries, 4 * size}), 91, -1, 1),
                 RandomTensor(F32({3, queries, 2 * size}), 92, -1, 1),
                 RandomTensor(F32({3, queries, 2 * size}), 93, -1, 1),
                 MakeTensor({DType::kI32, {3}}), MakeTensor({DType::kI32, {3}}),
                 RandomTensor(F32({2, ops::CacheElements(2, size, capacity)}), 94, -1, 1));
    const int32_t slots[] = {1, -1, 0};
    std::copy_n(slots, 3, op_case.inputs[3].data.as<int32_t>());
    std::fill_n(op_case.inputs[4].data.as<int32_t>(), 3, 0);
    cases.push_back(std::move(op_case));
  }
}

void AddRopes(int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t size = std::max<int64_t>(2, std::min<int64_t>(n, 64) / 2 * 2);
  std::vector<double> factors;
  for (int64_t pair = 0; pair < size / 2; ++pair) {
    factors.push_back(1 + 0.25 * static_cast<double>(pair));
  }
  const Attributes variants[] = {
      {},
      {{"scaling", "yarn"},
       {"factor", 4.0},
       {"base", 100.0},
       {"original_context", int64_t{64}},
       {"beta_fast", 8.0},
       {"magnitude", 1.25}},
      {{"scaling", "yarn"},
       {"factor", 4.0},
       {"original_context", int64_t{64}},
       {"truncate", int64_t{0}},
       {"inverse", int64_t{1}}},
      {{"scaling", "longrope"}, {"factors", factors}, {"magnitude", 0.75}, {"inverse", int64_t{1}}},
      {{"interleaved", int64_t{1}}, {"offset", int64_t{5}}},
      {{"dims", std::max<int64_t>(2, size / 4 * 2)}, {"base", 500.0}, {"inverse", int64_t{1}}},
      {{"scaling", "linear"}, {"factor", 4.0}},
      {{"scaling", "llama3"}, {"factor", 8.0}, {"original_context", int64_t{64}}},
      {{"size", size / 2 / 2 * 2 > 0 && size % 4 == 0 ? size / 2 : size}},
  };
  for (const Attributes& attributes : variants) {
    cases.push_back(MakeCase(attributes.Text("scaling"), attributes, {0},
                             RandomTensor(F32({2, std::min<int64_t>(rows, 40), size}), 61)));
  }
  const int64_t texts = std::min<int64_t>(rows, 40);
  for (const int64_t interleaved : {0, 1}) {
    cases.push_back(MakeCase("angles", {{"size", size}, {"interleaved", interleaved}}, {},
                             RandomTensor(F32({2, texts, 2 * size}), 61),
                             RandomTensor(F32({2, texts, size}), 62, -1, 1)));
  }
}

void AddPools(bool gradient, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t tokens = std::min<int64_t>(rows, 20) + 1;
  for (const char* kind : {"first", "mean", "last"}) {
    for (const bool masked : {false, true}) {
      OpCase op_case = MakeCase(kind, {{"kind", kind}}, {0}, RandomTensor(F32({3, tokens, n}), 71));
      if (gradient) {
        op_case.with_gradient.clear();
        op_case.inputs.insert(op_case.inputs.begin(), RandomTensor(F32({3, n}), 72));
      }
      if (masked) {
        HostTensor mask = RandomTensor(F32({3, tokens}), 73, 0, 0);
        // Padding at the end, at the start, and everywhere.
        mask.floats()[tokens - 1] = -1e9f;
        mask.floats()[tokens] = -1e9f;
        for (float& m : mask.floats().last(tokens)) m = -1e9f;
        op_case.inputs.push_back(std::move(mask));
      }
      cases.push_back(std::move(op_case));
    }
  }
}

// The loss behind a head, and its gradient: in one piece, and in pieces of some rows or classes; a
// row without a target.
void AddLinearLosses(bool gradient, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const int64_t width = std::min<int64_t>(rows + 3, 40);
  for (const bool turned : {false, true}) {
    Attributes attributes{{"transpose_b", int64_t{turned}}};
    // Of some five rows, or of one panel of classes.
    if (turned) attributes.Set("piece_bytes", gradient ? rows * 40 * 6 : n * 20);
    OpCase op_case =
        MakeCase(turned ? "turned, in pieces" : "", attributes, {0, 1},
                 RandomTensor(F32({rows, width}), 101, -1, 1),
                 RandomTensor(F32(turned ? Shape({n, width}) : Shape({width, n})), 102, -1, 1),
                 RandomTensor({DType::kI32, {rows}}, 103, 0, static_cast<double>(n)));
    if (rows > 2) op_case.inputs[2].data.as<int32_t>()[1] = -1;
    if (gradient) {
      op_case.with_gradient.clear();
      op_case.inputs.push_back(RandomTensor(F32({rows}), 104, 2, 3));
      op_case.inputs.push_back(RandomTensor(F32({rows}), 105, 1, 2 + static_cast<double>(n)));
      op_case.inputs.push_back(RandomTensor(F32({rows}), 106));
    }
    cases.push_back(std::move(op_case));
  }
}

}  // namespace

void AddTransformerCases(std::string_view op, int64_t rows, int64_t n, std::vector<OpCase>& cases) {
  const Shape shape({2, std::min<int64_t>(rows, 60), n});
  if (op == "attention" || op == "attention_grad") {
    AddAttention(op == "attention_grad", rows, n, cases);
  } else if (op == "packed_attention" || op == "packed_attention_grad") {
    AddPackedAttention(op == "packed_attention_grad", rows, n, cases);
  } else if (op == "pool_tokens" || op == "pool_tokens_grad") {
    AddPools(op == "pool_tokens_grad", rows, n, cases);
  } else if (op == "cached_attention") {
    AddCachedAttention(rows, n, cases);
  } else if (op.starts_with("linear_cross_entropy")) {
    AddLinearLosses(op.ends_with("_grad"), rows, n, cases);
  } else if (op == "rope") {
    AddRopes(rows, n, cases);
  } else if (op == "rms_norm") {
    cases.push_back(MakeCase("", {{"epsilon", 1e-3}}, {0, 1}, RandomTensor(F32(shape), 62),
                             RandomTensor(F32({n}), 63)));
  } else if (op == "rms_norm_grad") {
    cases.push_back(MakeCase("", {}, {}, RandomTensor(F32(shape), 62), RandomTensor(F32({n}), 63),
                             RandomTensor(F32(shape.WithoutAxis(2)), 64, 0.3, 1.5),
                             RandomTensor(F32(shape), 65)));
  } else if (op == "silu") {
    cases.push_back(MakeCase("", {}, {0}, RandomTensor(F32(shape), 66, -5, 5)));
  } else if (op == "silu_grad") {
    cases.push_back(
        MakeCase("", {}, {}, RandomTensor(F32(shape), 66, -5, 5), RandomTensor(F32(shape), 67)));
  }
}

}  // namespace lepton::engine_test
