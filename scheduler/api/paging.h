// Lists in pages: ?limit= items after ?cursor=, which is the key of the page before's last item.
// The keys grow over a list, so that what is added or removed meanwhile moves nothing else.
#pragma once

#include <string>
#include <type_traits>

#include "runtime/base/json.h"
#include "runtime/base/status.h"
#include "runtime/http/http.h"

namespace lepton::api {

struct PageRequest {
  std::string after;          // of lists by name; empty for the first page
  int64_t after_number = -1;  // of lists by number
  size_t limit = 100;
};
// Of a list whose keys are names, or numbers from 0. kInvalidArgument names the parameter.
Result<PageRequest> ParsePage(const http::Request& request);
Result<PageRequest> ParseNumberedPage(const http::Request& request);

// {"items", "next_cursor"} of `all`, which is in the order of its keys: key_of(item) is a string or
// an integer, view(item) is JSON and made for what is on the page alone.
template <typename Range, typename KeyOf, typename View>
nlohmann::json MakePage(const Range& all, const PageRequest& page, KeyOf key_of, View view) {
  nlohmann::json items = nlohmann::json::array();
  std::string last;
  for (const auto& item : all) {
    const auto& key = key_of(item);
    std::string text;
    if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(key)>>) {
      if (static_cast<int64_t>(key) <= page.after_number) continue;
      text = std::to_string(key);
    } else {
      if (!page.after.empty() && key <= page.after) continue;
      text = key;
    }
    if (items.size() == page.limit) return {{"items", std::move(items)}, {"next_cursor", last}};
    items.push_back(view(item));
    last = std::move(text);
  }
  return {{"items", std::move(items)}, {"next_cursor", ""}};
}

}  // namespace lepton::api
