#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::model {

// An alphabet of characters with special tokens, stored as a `tokenizer.json` that the Hugging
// Face `tokenizers` package loads and encodes with to the same ids (special tokens written out in
// the text included). Ids: <pad> 0, <bos> 1, <eos> 2, <unk> 3, then the alphabet in byte order.
// Encoding adds no special token by itself. UTF-8; a character outside the alphabet is <unk>.
class Tokenizer {
 public:
  static constexpr std::int32_t kPad = 0, kBos = 1, kEos = 2, kUnk = 3;

  // `alphabet`: distinct Unicode characters in any order. Error: kInvalidArgument (empty,
  // repeated, malformed UTF-8).
  static Result<std::unique_ptr<Tokenizer>> FromAlphabet(std::string_view alphabet);
  // Only what this class writes is read; anything else is kInvalidArgument naming file and key.
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view text,
                                                     const std::string& origin);
  virtual ~Tokenizer() = default;
  virtual std::int32_t vocab() const = 0;
  virtual std::vector<std::int32_t> Encode(std::string_view text) const = 0;
  // Special tokens are left out unless asked for; ids out of range are U+FFFD.
  virtual std::string Decode(std::span<const std::int32_t> ids,
                             bool with_special = false) const = 0;
  virtual std::string ToJson() const = 0;      // tokenizer.json
  virtual std::string ConfigJson() const = 0;  // tokenizer_config.json
  virtual Hash128 Hash() const = 0;
};

}  // namespace thresher::model
