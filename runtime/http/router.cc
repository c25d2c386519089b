#include "runtime/http/router.h"

#include <glog/logging.h>

#include <algorithm>
#include <set>

namespace lepton::http {
namespace {

std::vector<std::string_view> Segments(std::string_view path) {
  std::vector<std::string_view> segments;
  if (!path.empty() && path[0] == '/') path.remove_prefix(1);
  while (true) {
    const size_t slash = path.find('/');
    segments.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

// One part of a pattern between slashes.
struct Piece {
  enum class Kind { kLiteral, kVerb, kPlaceholder, kRest };  // the most specific first
  Kind kind = Kind::kLiteral;
  std::string text;  // the literal, or the placeholder's name
  std::string verb;  // ":cancel"
};

Piece ParsePiece(std::string_view segment) {
  if (segment.empty() || segment[0] != '{') {
    CHECK(segment.find_first_of("{}") == std::string_view::npos) << "route: " << segment;
    return {Piece::Kind::kLiteral, std::string(segment), ""};
  }
  const size_t close = segment.find('}');
  CHECK(close != std::string_view::npos && close > 1) << "route: unclosed " << segment;
  std::string name(segment.substr(1, close - 1));
  const std::string verb(segment.substr(close + 1));
  CHECK(verb.empty() || (verb[0] == ':' && verb.size() > 1)) << "route: " << segment;
  if (name.ends_with("...")) {
    CHECK(verb.empty()) << "route: a verb after the rest of the path";
    name.resize(name.size() - 3);
    return {Piece::Kind::kRest, std::move(name), ""};
  }
  return {verb.empty() ? Piece::Kind::kPlaceholder : Piece::Kind::kVerb, std::move(name), verb};
}

bool MatchPiece(const Piece& piece, std::string_view segment,
                std::map<std::string, std::string>& params) {
  std::string_view value = segment;
  switch (piece.kind) {
    case Piece::Kind::kLiteral: {
      const auto decoded = PercentDecode(segment);
      return decoded && *decoded == piece.text;
    }
    case Piece::Kind::kVerb:
      if (!segment.ends_with(piece.verb)) return false;
      value.remove_suffix(piece.verb.size());
      break;
    case Piece::Kind::kPlaceholder:
    case Piece::Kind::kRest:
      break;
  }
  if (value.empty()) return false;
  auto decoded = PercentDecode(value);
  if (!decoded) return false;
  params[piece.text] = std::move(*decoded);
  return true;
}

}  // namespace

struct Router::Compiled {
  std::vector<Piece> pieces;
  // Lower is more specific: compared piece by piece.
  std::vector<int> rank;

  bool Match(std::string_view path, const std::vector<std::string_view>& segments,
             std::map<std::string, std::string>& params) const {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i >= segments.size()) return false;
      if (pieces[i].kind == Piece::Kind::kRest) {
        const size_t offset = static_cast<size_t>(segments[i].data() - path.data());
        return MatchPiece(pieces[i], path.substr(offset), params);
      }
      if (!MatchPiece(pieces[i], segments[i], params)) return false;
    }
    return pieces.size() == segments.size();
  }
};

Router::Router(std::vector<Route> routes, Guard guard, Fallback fallback)
    : routes_(std::move(routes)), guard_(std::move(guard)), fallback_(std::move(fallback)) {
  std::set<std::string> shapes;
  for (const Route& route : routes_) {
    CHECK(!route.pattern.empty() && route.pattern[0] == '/') << "route: " << route.pattern;
    CHECK(route.handler) << "route: " << route.method << " " << route.pattern << " has no handler";
    Compiled compiled;
    std::string shape = route.method;
    for (const std::string_view segment : Segments(route.pattern)) {
      CHECK(compiled.pieces.empty() || compiled.pieces.back().kind != Piece::Kind::kRest)
          << "route: {...} must be the last part of " << route.pattern;
      Piece piece = ParsePiece(segment);
      shape += "/" + (piece.kind == Piece::Kind::kLiteral ? piece.text : "{}" + piece.verb);
      compiled.rank.push_back(static_cast<int>(piece.kind));
      compiled.pieces.push_back(std::move(piece));
    }
    CHECK(shapes.insert(shape).second) << "route: two rows for " << shape;
    compiled_.push_back(std::move(compiled));
  }
}

Router::~Router() = default;

const Route* Router::Find(Request& request, std::vector<std::string>* allow) const {
  const std::string_view target = request.target;
  const std::string_view path = target.substr(0, target.find_first_of("?#"));
  const std::vector<std::string_view> segments = Segments(path);
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  size_t best = routes_.size();
  std::map<std::string, std::string> best_params;
  for (size_t i = 0; i < routes_.size(); ++i) {
    std::map<std::string, std::string> params;
    if (!compiled_[i].Match(path, segments, params)) continue;
    if (routes_[i].method != method) {
      if (allow != nullptr) allow->push_back(routes_[i].method);
      continue;
    }
    if (best == routes_.size() || compiled_[i].rank < compiled_[best].rank) {
      best = i;
      best_params = std::move(params);
    }
  }
  if (best == routes_.size()) return nullptr;
  request.params = std::move(best_params);
  return &routes_[best];
}

std::optional<Response> Router::Refuse(Request& request, const Route** found) const {
  std::vector<std::string> allow;
  const Route* route = Find(request, &allow);
  if (found != nullptr) *found = route;
  if (route != nullptr) return guard_ ? guard_(*route, request) : std::nullopt;
  const int status = allow.empty() ? 404 : 405;
  Response response =
      fallback_       ? fallback_(request, status)
      : status == 404 ? HttpProblem(404, "NOT_FOUND", request.path + ": no such resource")
                      : HttpProblem(405, "INVALID_ARGUMENT",
                                    request.path + ": " + request.method + " is not possible here");
  if (status == 405) {
    std::sort(allow.begin(), allow.end());
    allow.erase(std::unique(allow.begin(), allow.end()), allow.end());
    std::string list;
    for (const std::string& method : allow) list += (list.empty() ? "" : ", ") + method;
    response.headers.emplace("Allow", list);
  }
  return response;
}

void Router::Handle(Request request, ResponderPtr responder) const {
  const Route* route = nullptr;
  if (std::optional<Response> refusal = Refuse(request, &route)) {
    responder->Send(*std::move(refusal));
    return;
  }
  route->handler(std::move(request), std::move(responder));
}

Handler Router::AsHandler() const {
  return [this](Request request, ResponderPtr responder) {
    Handle(std::move(request), std::move(responder));
  };
}

}  // namespace lepton::http
