// The regexes of tokenizer.json are Oniguruma's (in its Ruby syntax). PCRE2 reads most of them
// alike, and some as something else without a word.
// Threads: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton::tokenizer {

// The pattern for PCRE2 (UTF, UCP, MULTILINE, a newline is \n) that matches what `pattern` does in
// Oniguruma. kInvalidArgument names what cannot be said: options but i, nested sets that are
// negated or hold a range's end, intersections, \W and \H in brackets, {n}+ and {n}?.
// Source: Oniguruma's doc/RE, with the properties of its make_unicode_property_data.py.
Result<std::string> SpellForPcre2(std::string_view pattern);

}  // namespace lepton::tokenizer
