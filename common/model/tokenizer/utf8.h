#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace thresher::model {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// One step of a UTF-8 reader. A malformed sequence is consumed up to the byte that breaks it
// ("maximal subpart", Unicode 15 section 3.9), so the count of replacements equals Python's and
// Rust's.
struct Utf8Step {
  char32_t character = 0;
  std::size_t bytes = 0;  // at least 1
  bool valid = false;
  bool truncated = false;  // not valid, but more bytes could complete it
};

// `text` must not be empty.
Utf8Step NextCharacter(std::string_view text);

// UTF-8 of a Unicode scalar value.
std::string EncodeUtf8(char32_t character);

// The bytes before the first malformed sequence; text.size() when there is none.
std::size_t ValidPrefix(std::string_view text);

// Every malformed sequence replaced by U+FFFD, one for each maximal subpart; what Python's
// bytes.decode("utf-8", "replace") gives.
std::string ReplaceMalformed(std::string_view text);

}  // namespace thresher::model
