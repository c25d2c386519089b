// print_encoding TOKENIZER.json < texts   One JSON string a line in; one JSON object a line out:
//   {"ids": [...], "tokens": [...], "offsets": [[b, e], ...], "decoded": "..."}
// print_encoding --ids TOKENIZER.json FILE   The ids of the whole file, one a line.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/base/file.h"
#include "runtime/formats/tokenizer/tokenizer.h"

namespace {

using lepton::tokenizer::Tokenizer;

int Fail(const lepton::Status& status) {
  std::cerr << status.ToString() << "\n";
  return 1;
}

int PrintIds(const Tokenizer& tokenizer, const char* path) {
  auto text = lepton::ReadFile(path);
  if (!text.ok()) return Fail(text.status());
  auto ids = tokenizer.EncodeIds(*text);
  if (!ids.ok()) return Fail(ids.status());
  for (uint32_t id : *ids) std::printf("%u\n", id);
  return 0;
}

int PrintLine(const Tokenizer& tokenizer, const std::string& line) {
  auto text = nlohmann::json::parse(line).get<std::string>();
  auto encoding = tokenizer.Encode(text);
  if (!encoding.ok()) return Fail(encoding.status());
  auto decoded = tokenizer.Decode(encoding->ids, false);
  if (!decoded.ok()) return Fail(decoded.status());
  nlohmann::json out;
  out["ids"] = encoding->ids;
  out["tokens"] = encoding->tokens;
  out["offsets"] = nlohmann::json::array();
  for (const auto& offsets : encoding->offsets) {
    out["offsets"].push_back({offsets.begin, offsets.end});
  }
  out["decoded"] = *decoded;
  std::cout << out.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  bool ids = argc == 4 && std::string(argv[1]) == "--ids";
  if (!ids && argc != 2) {
    std::cerr << "usage: print_encoding [--ids] TOKENIZER.json [FILE]\n";
    return 2;
  }
  auto tokenizer = Tokenizer::FromFile(argv[ids ? 2 : 1]);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  if (ids) return PrintIds(**tokenizer, argv[3]);
  std::string line;
  while (std::getline(std::cin, line)) {
    if (int error = PrintLine(**tokenizer, line)) return error;
  }
  return 0;
}
