#pragma once

#include <cstdint>

namespace thresher::model {

// Classes of Unicode scalar values, as bits; Unicode 16.0 on every machine (unicode_ranges.inc).
enum CharacterClass : std::uint8_t {
  kLetter = 1,         // \p{L}
  kNumber = 2,         // \p{N}
  kSpace = 4,          // \s: White_Space
  kLineEnd = 8,        // carriage return and line feed
  kWordCharacter = 16  // \w as the Rust regex crate has it
};

// One byte of classes for each of the 0x110000 code points. Made on first use (a millisecond).
const std::uint8_t* CharacterClasses();

}  // namespace thresher::model
