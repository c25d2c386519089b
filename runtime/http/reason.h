// The reason phrases of RFC 9110.
#pragma once

#include <string_view>

namespace lepton::http {

// "Not Found"; "Unknown" for a status without one.
std::string_view ReasonPhrase(int status);

}  // namespace lepton::http
