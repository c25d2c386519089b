// UTF-8 and the character classes that tokenisers ask for. Everything here takes valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lepton::tokenizer {

inline size_t Utf8Length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
// The code point at `at`, and moves `at` behind it.
inline char32_t NextCodePoint(std::string_view text, size_t& at) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + at;
  size_t length = Utf8Length(*p);
  at += length;
  switch (length) {
    case 1:
      return p[0];
    case 2:
      return char32_t(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    case 3:
      return char32_t(p[0] & 0x0F) << 12 | char32_t(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    default:
      return char32_t(p[0] & 0x07) << 18 | char32_t(p[1] & 0x3F) << 12 |
             char32_t(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
  }
}
void AppendUtf8(char32_t c, std::string& out);
std::string ToUtf8(char32_t c);
std::u32string ToCodePoints(std::string_view text);
bool IsAscii(std::string_view text);

bool IsWhiteSpace(char32_t c);      // the property White_Space
bool IsLetter(char32_t c);          // L*
bool IsNumber(char32_t c);          // N*
bool IsMark(char32_t c);            // M*
bool IsNonspacingMark(char32_t c);  // Mn
bool IsPunctuation(char32_t c);     // P* and all ASCII punctuation, as BERT counts
bool IsWordCharacter(char32_t c);   // \w of a Unicode regex
bool IsBertControl(char32_t c);     // Cc, Cf, Co but tab, newline and carriage return
bool IsChinese(char32_t c);         // the CJK blocks of BERT

// The character that stands for a byte in byte-level vocabularies (GPT-2's table), and back; -1 for
// a character that stands for none.
char32_t ByteToChar(uint8_t byte);
int CharToByte(char32_t c);

}  // namespace lepton::tokenizer
