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

// One of the files that a folder's tokenizer is made of: name within the folder, content.
struct TokenizerFile {
  std::string name;
  std::string bytes;
};

// Text to token ids and back. Two kinds, both read and written as `tokenizer.json` with the ids
// that the Hugging Face `tokenizers` package gives:
// - an alphabet of characters with special tokens, made by this program: <pad> 0, <bos> 1, <eos> 2,
//   <unk> 3, then the alphabet in byte order; a character outside it is <unk>;
// - byte-level byte-pair encoding as the Qwen2, Qwen3, Llama-3 and GPT-2 families have it.
// Text is UTF-8. A malformed sequence counts as U+FFFD, one for each maximal subpart (what Python's
// bytes.decode("utf-8", "replace") gives), before anything else looks at it. Special and added
// tokens written out in a text are themselves. Immutable; threads share it.
class Tokenizer {
 public:
  // Ids of the character alphabet.
  static constexpr std::int32_t kPad = 0, kBos = 1, kEos = 2, kUnk = 3;

  // `alphabet`: distinct Unicode characters in any order. Error: kInvalidArgument (empty,
  // repeated, malformed UTF-8).
  static Result<std::unique_ptr<Tokenizer>> FromAlphabet(std::string_view alphabet);
  // Reads a tokenizer.json of either kind. Errors name `origin`, key and what is allowed: kDataLoss
  // (not JSON), kInvalidArgument (anything this class would encode differently: another model,
  // normalizer, pattern, ...; a vocabulary that is missing, has an id twice or out of range; merges
  // naming unknown tokens), kInternal (no Unicode data on this machine).
  static Result<std::unique_ptr<Tokenizer>> FromJson(std::string_view text,
                                                     const std::string& origin);
  virtual ~Tokenizer() = default;
  virtual std::int32_t vocab() const = 0;
  // Adds no token by itself.
  virtual std::vector<std::int32_t> Encode(std::string_view text) const = 0;
  // With the tokens that the post-processor puts around a text (<|begin_of_text|> of Llama-3; the
  // character kind has none). Not for a rendered chat template, which has them written out.
  virtual std::vector<std::int32_t> EncodeWithSpecial(std::string_view text) const = 0;
  // The text of the bytes of all ids, malformed sequences as U+FFFD. Special tokens are left out
  // unless asked for; ids out of range are U+FFFD.
  std::string Decode(std::span<const std::int32_t> ids, bool with_special = false) const;
  // What Decode joins: the bytes of one id, not always whole characters. Lives as long as this.
  virtual std::string_view TokenBytes(std::int32_t id, bool with_special) const = 0;
  // The id of a token as its file writes it ("<|im_end|>", "\u0120the"); -1 when there is none.
  virtual std::int32_t TokenId(std::string_view content) const = 0;
  virtual std::string ToJson() const = 0;      // tokenizer.json, byte for byte as read
  virtual std::string ConfigJson() const = 0;  // tokenizer_config.json of a folder without one
  virtual Hash128 Hash() const = 0;            // of what decides ids

  // Everything that belongs into a folder: as LoadTokenizer found it, byte for byte; for others
  // tokenizer.json and tokenizer_config.json.
  std::vector<TokenizerFile> Files() const;

 private:
  friend Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder);
  std::vector<TokenizerFile> beside_;  // the folder's other files; empty: not from a folder
};

// Reads the tokenizer of a folder in Hugging Face layout: tokenizer.json and, kept for Files(),
// tokenizer_config.json, chat templates and the older vocabulary files beside it. Errors: as
// ReadFile and FromJson; kInvalidArgument when tokenizer_config.json gives an id another token.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder);

// Writes Files() into an existing folder, each atomically. Errors: as WriteFileAtomic.
Status SaveTokenizer(const std::filesystem::path& folder, const Tokenizer& tokenizer);

}  // namespace thresher::model
