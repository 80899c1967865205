#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/wire/frame.h"

namespace thresher::fuzz {

// The bytes of a fuzzer as a list of decisions: what to build and what to spoil. Past its end every
// decision is 0, so each cut of an input is an input.
class Recipe {
 public:
  explicit Recipe(std::string_view bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  std::uint8_t U8() { return static_cast<std::uint8_t>(Take(1)); }
  std::uint16_t U16() { return static_cast<std::uint16_t>(Take(2)); }
  std::uint64_t U64() { return Take(8); }
  std::size_t Below(std::size_t bound) { return bound <= 256 ? U8() % bound : U16() % bound; }

 private:
  std::uint64_t Take(std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count && !bytes_.empty(); ++i) {
      value |= std::uint64_t{static_cast<std::uint8_t>(bytes_.front())} << (8 * i);
      bytes_.remove_prefix(1);
    }
    return value;
  }

  std::string_view bytes_;
};

inline constexpr std::size_t kChecksumBytes = 8;
inline constexpr std::size_t kLengthAt = 8, kEnvelopeLengthAt = 12;

// A word that means something to Cap'n Proto: struct, list, far and capability pointers with sizes
// and offsets near their limits; or any.
inline std::uint64_t Word(Recipe& recipe) {
  const std::uint64_t any = recipe.U16();
  switch (recipe.Below(8)) {
    case 0:
      return 0;
    case 1:
      return ~std::uint64_t{0};
    case 2:  // struct: offset, data and pointer words
      return (any & 0x3f) << 2 | (any >> 8) << 32 | (any & 0xff) << 48;
    case 3:  // list: offset, element size, count
      return 1 | (any & 0x3f) << 2 | (any >> 6 & 7) << 32 | ((any >> 9) | 0x1fffff80) << 35;
    case 4:  // list with a small count
      return 1 | (any & 0x3f) << 2 | (any >> 6 & 7) << 32 | (any >> 9) << 35;
    case 5:  // far
      return 2 | (any & 1) << 2 | (any >> 1 & 0xff) << 3 | (any >> 9) << 32;
    case 6:  // capability
      return 3 | any << 32;
    default:
      return recipe.U64();
  }
}

inline void PutWord(std::string& frame, std::size_t at, std::uint64_t word) {
  for (std::size_t i = 0; i < 8 && at + i < frame.size(); ++i) {
    frame[at + i] = static_cast<char>(word >> (8 * i));
  }
}

// Spoils one thing. `frame` may have any size.
inline void Spoil(std::string& frame, Recipe& recipe) {
  const std::size_t words = frame.size() / 8 + 1;
  const std::size_t at = recipe.Below(words) * 8;
  const std::size_t room = at < frame.size() ? frame.size() - at : 0;
  switch (recipe.Below(9)) {
    case 0:
      if (!frame.empty())
        frame[recipe.U16() % frame.size()] ^= static_cast<char>(1 << recipe.Below(8));
      break;
    case 1:
      PutWord(frame, at, Word(recipe));
      break;
    case 2: {  // a pointer that is there, somewhere else: aliases and cycles
      const std::size_t from = recipe.Below(words) * 8;
      std::string word = from < frame.size() ? frame.substr(from, 8) : "";
      if (room >= word.size()) frame.replace(at, word.size(), word);
      break;
    }
    case 3:  // the header
      if (frame.size() > 4)
        frame[4 + recipe.Below(12) % (frame.size() - 4)] = static_cast<char>(recipe.U8());
      break;
    case 4:
      frame.resize(recipe.U16() % (frame.size() + 1));
      break;
    case 5:
      frame.insert(std::min(at, frame.size()), std::string(8, static_cast<char>(recipe.U8())));
      break;
    case 6:
      frame.erase(std::min(at, frame.size()), 8);
      break;
    case 7:
      frame.append(frame, std::min(at, frame.size()), std::min<std::size_t>(room, 512));
      break;
    default:
      if (!frame.empty()) frame[recipe.U16() % frame.size()] = static_cast<char>(recipe.U8());
  }
}

// Makes the header's length fit the bytes.
inline void FitLength(std::string& frame) {
  if (frame.size() < wire::kFrameOverheadBytes) return;
  const auto length = static_cast<std::uint32_t>(frame.size() - wire::kFrameOverheadBytes);
  for (std::size_t i = 0; i < 4; ++i) frame[kLengthAt + i] = static_cast<char>(length >> (8 * i));
}

// Makes the checksum fit: no fuzzer finds XXH3 by itself.
inline void FitChecksum(std::string& frame) {
  if (frame.size() < kChecksumBytes) return;
  frame.resize(frame.size() - kChecksumBytes);
  AppendLittle<std::uint64_t>(frame, HashBytes64(AsBytes(frame)));
}

}  // namespace thresher::fuzz
