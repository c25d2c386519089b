// nlohmann::json, with its big templates compiled once, in json.cc. A source that includes
// <nlohmann/json.hpp> alone gets the same type, and compiles them for itself.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#if NLOHMANN_JSON_VERSION_MAJOR == 3 && NLOHMANN_JSON_VERSION_MINOR == 11
#ifndef LEPTON_JSON_TEMPLATE
#define LEPTON_JSON_TEMPLATE extern template
#endif
// Parsing from one kind of input.
#define LEPTON_JSON_INPUT(...)                                             \
  LEPTON_JSON_TEMPLATE class lexer<json, __VA_ARGS__>;                     \
  LEPTON_JSON_TEMPLATE class parser<json, __VA_ARGS__>;                    \
  LEPTON_JSON_TEMPLATE bool parser<json, __VA_ARGS__>::sax_parse_internal( \
      json_sax_dom_parser<json>*);                                         \
  LEPTON_JSON_TEMPLATE bool parser<json, __VA_ARGS__>::sax_parse_internal( \
      json_sax_dom_callback_parser<json>*);

namespace nlohmann {
LEPTON_JSON_TEMPLATE class basic_json<>;
LEPTON_JSON_TEMPLATE json& json::operator[]<const char>(const char*);
LEPTON_JSON_TEMPLATE const json& json::operator[]<const char>(const char*) const;
namespace detail {
LEPTON_JSON_TEMPLATE class serializer<json>;
LEPTON_JSON_TEMPLATE class json_sax_dom_parser<json>;
LEPTON_JSON_TEMPLATE class json_sax_dom_callback_parser<json>;
LEPTON_JSON_INPUT(iterator_input_adapter<std::string::const_iterator>)
LEPTON_JSON_INPUT(iterator_input_adapter<const char*>)  // std::string_view
}  // namespace detail
}  // namespace nlohmann
#undef LEPTON_JSON_INPUT
#undef LEPTON_JSON_TEMPLATE
#endif
