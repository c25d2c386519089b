#include "runtime/base/ids.h"

#include <algorithm>
#include <cctype>

namespace lepton {

Status CheckName(std::string_view field, std::string_view name) {
  const auto alnum = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  const bool good = !name.empty() && name.size() <= 63 && alnum(name.front()) &&
                    std::all_of(name.begin(), name.end(), [&](char c) {
                      return alnum(c) || c == '.' || c == '_' || c == '-';
                    });
  if (good) return Status::Ok();
  return InvalidArgument(std::string(field) + ": '" + std::string(name) +
                         "' is not a name: use 1 to 63 letters, digits, '.', '_' or '-', the first "
                         "a letter or digit");
}

}  // namespace lepton
