#include <algorithm>
#include <string>

#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

// Tokens [first, last] of a text that its answer is read from; those that are masked do not count.
struct PooledTokens {
  PooledTokens(const KernelContext& context, int mask_index, const Shape& x)
      : mask(context.inputs() > mask_index ? context.input(mask_index).as<float>() : nullptr),
        tokens(x[1]),
        kind(context.attributes().Text("kind")) {}

  bool Counts(int64_t text, int64_t token) const {
    return mask == nullptr || mask[text * tokens + token] > -1;
  }
  // How much of each token's row the text's row takes.
  std::vector<double> Shares(int64_t text) const {
    std::vector<double> shares(tokens, 0.0);
    std::vector<int64_t> counted;
    for (int64_t token = 0; token < tokens; ++token) {
      if (Counts(text, token)) counted.push_back(token);
    }
    if (counted.empty()) counted.push_back(0);
    if (kind == "first") counted.resize(1);
    if (kind == "last") counted = {counted.back()};
    for (const int64_t token : counted) shares[token] = 1.0 / static_cast<double>(counted.size());
    return shares;
  }

  const float* mask;
  const int64_t tokens;
  const std::string kind;
};

}  // namespace

void Positions(const KernelContext& context) {
  auto position = static_cast<int32_t>(context.attributes().Int("offset"));
  for (int32_t& y : context.output(0).span<int32_t>()) y = position++;
}

void PoolTokens(const KernelContext& context) {
  const Shape& shape = context.input(0).shape();
  const PooledTokens pooled(context, 1, shape);
  const int64_t n = shape[2];
  for (int64_t text = 0; text < shape[0]; ++text) {
    const std::vector<double> shares = pooled.Shares(text);
    const float* x = context.input(0).as<float>() + text * pooled.tokens * n;
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t token = 0; token < pooled.tokens; ++token) {
        if (shares[token] > 0) sum += shares[token] * x[token * n + i];
      }
      context.output(0).as<float>()[text * n + i] = static_cast<float>(sum);
    }
  }
}

void PoolTokensGrad(const KernelContext& context) {
  const Shape& shape = context.input(1).shape();
  const PooledTokens pooled(context, 2, shape);
  const int64_t n = shape[2];
  for (int64_t text = 0; text < shape[0]; ++text) {
    const std::vector<double> shares = pooled.Shares(text);
    const float* dy = context.input(0).as<float>() + text * n;
    float* dx = context.output(0).as<float>() + text * pooled.tokens * n;
    for (int64_t token = 0; token < pooled.tokens; ++token) {
      for (int64_t i = 0; i < n; ++i) {
        dx[token * n + i] = static_cast<float>(shares[token] * dy[i]);
      }
    }
  }
}

}  // namespace lepton::kernels::reference
