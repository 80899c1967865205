#include <cstdint>

#include "common/log/log.h"

namespace thresher {
namespace {

// Length of the UTF-8 sequence at the start of `text` and its code point; 0 when it is none.
std::size_t DecodeUtf8(std::string_view text, std::uint32_t& code) {
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t length = byte(0) < 0x80 ? 1 : byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if ((byte(0) >= 0x80 && byte(0) < 0xc2) || byte(0) > 0xf4 || text.size() < length) return 0;
  code = length == 1 ? byte(0) : byte(0) & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kSmallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

// What a terminal obeys instead of showing: C0, DEL, C1, bidirectional and line separators.
bool IsHostile(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x061c ||
         (code >= 0x200e && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

void AppendByte(std::string& out, unsigned char byte) {
  constexpr const char* kDigits = "0123456789abcdef";
  if (byte == '\n')
    out += "\\n";
  else if (byte == '\t')
    out += "\\t";
  else if (byte == '\r')
    out += "\\r";
  else
    (out += "\\x") += {kDigits[byte >> 4], kDigits[byte & 15]};
}

}  // namespace

std::string Visible(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::uint32_t code = 0;
    std::size_t length = DecodeUtf8(text, code);
    bool shown = length > 0 && !IsHostile(code);
    if (length == 0) length = 1;
    for (std::size_t i = 0; i < length; ++i) {
      if (shown)
        out += text[i];
      else
        AppendByte(out, static_cast<unsigned char>(text[i]));
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace thresher
