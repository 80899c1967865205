#include "common/model/tokenizer/byte_alphabet.h"

#include <array>

#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

constexpr char32_t kCharacters = 0x144;  // all are below

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> MakeCharacters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    characters[byte] = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return characters;
}

constexpr std::array<char32_t, 256> kCharacterOfByte = MakeCharacters();

constexpr std::array<std::int16_t, kCharacters> MakeBytes() {
  std::array<std::int16_t, kCharacters> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    bytes[kCharacterOfByte[byte]] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}

constexpr std::array<std::int16_t, kCharacters> kByteOfCharacter = MakeBytes();

}  // namespace

char32_t CharacterOfByte(std::uint8_t byte) { return kCharacterOfByte[byte]; }

std::optional<std::string> BytesOfToken(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const Utf8Step step = NextCharacter(token);
    if (!step.valid || step.character >= kCharacters || kByteOfCharacter[step.character] < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(kByteOfCharacter[step.character]);
    token.remove_prefix(step.bytes);
  }
  return bytes;
}

}  // namespace thresher::model
