#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

struct Lead {
  std::size_t bytes;        // 0: no lead byte
  unsigned char low, high;  // allowed second byte: excludes overlong forms and surrogates
  char32_t bits;
};

Lead ClassifyLead(unsigned char byte) {
  if (byte < 0xC2) return {0, 0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF, byte & 0x1Fu};
  if (byte < 0xF0) {
    const unsigned char low = byte == 0xE0 ? 0xA0 : 0x80;
    const unsigned char high = byte == 0xED ? 0x9F : 0xBF;
    return {3, low, high, byte & 0x0Fu};
  }
  if (byte < 0xF5) {
    const unsigned char low = byte == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = byte == 0xF4 ? 0x8F : 0xBF;
    return {4, low, high, byte & 0x07u};
  }
  return {0, 0, 0, 0};
}

}  // namespace

Utf8Step NextCharacter(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = ClassifyLead(first);
  if (lead.bytes == 0) return {0, 1, false};
  char32_t character = lead.bits;
  for (std::size_t i = 1; i < lead.bytes; ++i) {
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xBF;
    if (i >= text.size()) return {0, i, false, true};
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < low || byte > high) return {0, i, false};
    character = (character << 6) | (byte & 0x3Fu);
  }
  return {character, lead.bytes, true};
}

std::string EncodeUtf8(char32_t character) {
  const auto continuation = [&](int shift) {
    return static_cast<char>(0x80 | ((character >> shift) & 0x3F));
  };
  if (character < 0x80) return {static_cast<char>(character)};
  if (character < 0x800) return {static_cast<char>(0xC0 | (character >> 6)), continuation(0)};
  if (character < 0x10000) {
    return {static_cast<char>(0xE0 | (character >> 12)), continuation(6), continuation(0)};
  }
  return {static_cast<char>(0xF0 | (character >> 18)), continuation(12), continuation(6),
          continuation(0)};
}

std::size_t ValidPrefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = NextCharacter(text.substr(at));
    if (!step.valid) return at;
    at += step.bytes;
  }
  return at;
}

std::string ReplaceMalformed(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t valid = ValidPrefix(text);
    out += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += kReplacement;
    text.remove_prefix(NextCharacter(text).bytes);
  }
  return out;
}

}  // namespace thresher::model
