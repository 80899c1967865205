#include "common/model/tokenizer/split_pattern.h"

#include <array>
#include <utility>

#include "common/model/tokenizer/character_class.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

using Known = std::pair<std::string_view, SplitPattern>;
constexpr std::array<Known, 5> kKnown = {{
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitPattern::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitPattern::kLlama3},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     SplitPattern::kLlama3},
}};

// Length of the contraction after an apostrophe at `at`, the apostrophe included; 0 for none.
// `fold`: without regard to case; U+017F, the long s, then counts as an s.
std::size_t Contraction(std::string_view text, std::size_t at, bool fold) {
  if (text[at] != '\'' || at + 1 >= text.size()) return 0;
  const auto letter = [&](std::size_t i) -> char {
    if (i >= text.size()) return 0;
    const char c = text[i];
    return fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(at + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = letter(at + 2);
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l')) {
    return 3;
  }
  if (fold && text.substr(at + 1).starts_with("\xC5\xBF")) return 3;
  return 0;
}

}  // namespace

std::optional<SplitPattern> RecognisePattern(std::string_view regex) {
  for (const auto& [known, pattern] : kKnown) {
    if (known == regex) return pattern;
  }
  return std::nullopt;
}

std::string KnownPatterns() { return "the patterns of GPT-2, Qwen2 and Llama-3"; }

WordSplitter::WordSplitter(SplitPattern pattern)
    : pattern_(pattern), classes_(CharacterClasses()) {}

inline WordSplitter::Character WordSplitter::At(std::string_view text, std::size_t at) const {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {classes_[first], 1};
  if (first < 0xE0) return {classes_[(first & 0x1Fu) << 6 | (byte(1) & 0x3Fu)], 2};
  if (first < 0xF0) {
    return {classes_[(first & 0xFu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu)], 3};
  }
  return {classes_[(first & 7u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 |
                   (byte(3) & 0x3Fu)],
          4};
}

// The end of the run of characters of `classes` from `at`.
std::size_t WordSplitter::EndOfRun(std::string_view text, std::size_t at,
                                   std::uint8_t classes) const {
  while (at < text.size()) {
    const Character c = At(text, at);
    if ((c.classes & classes) == 0) break;
    at += c.bytes;
  }
  return at;
}

// [^\s\p{L}\p{N}]*
std::size_t WordSplitter::EndOfSymbols(std::string_view text, std::size_t at) const {
  while (at < text.size()) {
    const Character c = At(text, at);
    if ((c.classes & (kSpace | kLetter | kNumber)) != 0) break;
    at += c.bytes;
  }
  return at;
}

// \p{N} or \p{N}{1,3} from a number at `at`.
std::size_t WordSplitter::EndOfNumber(std::string_view text, std::size_t at) const {
  const int most = pattern_ == SplitPattern::kLlama3 ? 3 : 1;
  for (int i = 0; i < most && at < text.size(); ++i) {
    const Character c = At(text, at);
    if ((c.classes & kNumber) == 0) break;
    at += c.bytes;
  }
  return at;
}

// \s*[\r\n]+ (if `lines`), else \s+(?!\S), else \s+, from white space at `at`: up to the last line
// end of the run; a run that ends the text whole; one before a word without its last character.
std::size_t WordSplitter::EndOfSpace(std::string_view text, std::size_t at, bool lines) const {
  std::size_t end = at, last = at, after_line = at;
  while (end < text.size()) {
    const Character c = At(text, end);
    if ((c.classes & kSpace) == 0) break;
    last = end;
    end += c.bytes;
    if ((c.classes & kLineEnd) != 0) after_line = end;
  }
  if (lines && after_line > at) return after_line;
  return end == text.size() || last == at ? end : last;
}

std::size_t WordSplitter::Gpt2End(std::string_view text, std::size_t at) const {
  if (const std::size_t bytes = Contraction(text, at, false); bytes > 0) return at + bytes;
  const std::size_t word = text[at] == ' ' ? at + 1 : at;
  if (word < text.size()) {
    const std::uint8_t classes = At(text, word).classes;
    if ((classes & kLetter) != 0) return EndOfRun(text, word, kLetter);
    if ((classes & kNumber) != 0) return EndOfRun(text, word, kNumber);
    if ((classes & kSpace) == 0) return EndOfSymbols(text, word);
  }
  return EndOfSpace(text, at, false);
}

std::size_t WordSplitter::ModernEnd(std::string_view text, std::size_t at) const {
  if (const std::size_t bytes = Contraction(text, at, true); bytes > 0) return at + bytes;
  const Character first = At(text, at);
  if ((first.classes & kLetter) != 0) return EndOfRun(text, at, kLetter);
  if ((first.classes & kNumber) != 0) return EndOfNumber(text, at);
  const std::size_t next = at + first.bytes;
  if ((first.classes & kLineEnd) == 0 && next < text.size() &&
      (At(text, next).classes & kLetter) != 0) {
    return EndOfRun(text, next, kLetter);
  }
  const std::size_t symbols = text[at] == ' ' ? next : at;
  const std::size_t end = EndOfSymbols(text, symbols);
  if (end == symbols) return EndOfSpace(text, at, true);
  std::size_t lines = end;
  while (lines < text.size() && (text[lines] == '\r' || text[lines] == '\n')) ++lines;
  return lines;
}

std::size_t WordSplitter::PieceEnd(std::string_view text, std::size_t at) const {
  return pattern_ == SplitPattern::kGpt2 ? Gpt2End(text, at) : ModernEnd(text, at);
}

}  // namespace thresher::model
