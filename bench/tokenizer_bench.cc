// tokenizer_bench TOKENIZER.json TEXT   Megabytes of text encoded a second on one core: ids alone,
// with tokens and offsets, and the first call, whose word cache is empty. Checks that decoding
// gives the text back before it times anything.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "bench/goals.h"
#include "runtime/base/file.h"
#include "runtime/formats/tokenizer/tokenizer.h"

namespace {

template <typename Run>
double MegabytesPerSecond(size_t bytes, int rounds, Run run) {
  double best = 0;
  for (int i = 0; i < rounds; ++i) {
    auto begin = std::chrono::steady_clock::now();
    run();
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(bytes) / 1e6 / seconds.count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER.json TEXT\n");
    return 2;
  }
  auto tokenizer = lepton::tokenizer::Tokenizer::FromFile(argv[1]);
  auto text = lepton::ReadFile(argv[2]);
  if (!tokenizer.ok() || !text.ok()) {
    const auto& status = tokenizer.ok() ? text.status() : tokenizer.status();
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  size_t tokens = 0;
  double first = MegabytesPerSecond(
      text->size(), 1, [&] { tokens = (*tokenizer)->EncodeIds(*text).value().size(); });
  auto ids = (*tokenizer)->EncodeIds(*text, false).value();
  auto decoded = (*tokenizer)->Decode(ids, false);
  if (!decoded.ok() || *decoded != *text) {
    std::fprintf(stderr, "decoding does not give the text back\n");
    return 1;
  }
  double id_rate =
      MegabytesPerSecond(text->size(), 10, [&] { (void)(*tokenizer)->EncodeIds(*text).value(); });
  double full_rate =
      MegabytesPerSecond(text->size(), 10, [&] { (void)(*tokenizer)->Encode(*text).value(); });
  std::printf(
      "%zu bytes, %zu tokens\nfirst call  %6.1f MB/s\nids         %6.1f MB/s\n"
      "full        %6.1f MB/s\n",
      text->size(), tokens, first, id_rate, full_rate);
  lepton::goals::AtLeast("ids of a text, MB/s a core", id_rate, 20);
  return 0;
}
