#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace thresher::model {

// The printable characters by which byte-level vocabularies spell bytes: 0x21 to 0x7E, 0xA1 to 0xAC
// and 0xAE to 0xFF stand for themselves, the others take U+0100 onwards in order, so that a space
// is U+0120. Source: GPT-2's bytes_to_unicode, as the `tokenizers` package has it in ByteLevel.
char32_t CharacterOfByte(std::uint8_t byte);

// The bytes that `token` (UTF-8) spells; none when it has a character outside the alphabet.
std::optional<std::string> BytesOfToken(std::string_view token);

}  // namespace thresher::model
