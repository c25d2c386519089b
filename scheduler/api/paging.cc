#include "scheduler/api/paging.h"

#include "scheduler/api/respond.h"

namespace lepton::api {

Result<PageRequest> ParsePage(const http::Request& request) {
  PageRequest page;
  page.after = QueryText(request, "cursor");
  LEPTON_ASSIGN_OR_RETURN(const int64_t limit, QueryInt(request, "limit", 100, 1, 1000));
  page.limit = static_cast<size_t>(limit);
  return page;
}

Result<PageRequest> ParseNumberedPage(const http::Request& request) {
  LEPTON_ASSIGN_OR_RETURN(PageRequest page, ParsePage(request));
  LEPTON_ASSIGN_OR_RETURN(page.after_number, QueryInt(request, "cursor", -1, 0, INT64_MAX));
  return page;
}

}  // namespace lepton::api
