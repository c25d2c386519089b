// Bytes that should be UTF-8 text. What others send need not be: protobuf refuses to read back a
// string that is not, and so do browsers.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace lepton {

// The byte position of the first malformed sequence (overlong, surrogate, beyond U+10FFFF, cut).
std::optional<size_t> InvalidUtf8At(std::string_view text);
// Malformed sequences become U+FFFD, one per maximal subpart (Unicode 3.9), as Rust's lossy reader.
std::string ReplaceInvalidUtf8(std::string_view bytes);
// The longest beginning of `text` that has at most `bytes` and ends with a whole character.
std::string_view Utf8Prefix(std::string_view text, size_t bytes);

}  // namespace lepton
