// The dashboard's one page, embedded at build time from index.html.
#pragma once

#include <string_view>

namespace lepton::web {

std::string_view IndexPage();

}  // namespace lepton::web
