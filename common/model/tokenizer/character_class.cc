#include "common/model/tokenizer/character_class.h"

#include <cstddef>
#include <span>
#include <vector>

namespace thresher::model {
namespace {

struct Range {
  char32_t first, last;
};
#include "common/model/tokenizer/unicode_ranges.inc"

std::vector<std::uint8_t> MakeClasses() {
  std::vector<std::uint8_t> classes(0x110000);
  const auto mark = [&](std::span<const Range> ranges, CharacterClass bit) {
    for (const Range& range : ranges) {
      for (std::size_t c = range.first; c <= range.last; ++c) classes[c] |= bit;
    }
  };
  mark(kLetters, kLetter);
  mark(kNumbers, kNumber);
  mark(kSpaces, kSpace);
  mark(kWordCharacters, kWordCharacter);
  classes['\r'] |= kLineEnd;
  classes['\n'] |= kLineEnd;
  return classes;
}

}  // namespace

const std::uint8_t* CharacterClasses() {
  static const std::vector<std::uint8_t> classes = MakeClasses();
  return classes.data();
}

}  // namespace thresher::model
