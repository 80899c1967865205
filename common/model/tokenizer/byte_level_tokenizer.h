#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/model/tokenizer.h"
#include "common/model/tokenizer/added_tokens.h"
#include "common/model/tokenizer/byte_pair_encoder.h"
#include "common/model/tokenizer/nfc.h"
#include "common/model/tokenizer/tokenizer_spec.h"

namespace thresher::model {

// Byte-level byte-pair encoding as the `tokenizers` package does it: added tokens are cut out, the
// text between them is normalised and cut into words, and each word's bytes are merged.
class ByteLevelTokenizer final : public Tokenizer {
 public:
  // `json`: the text of the file, which ToJson gives back. Error: kInternal (no normalization
  // data).
  static Result<std::unique_ptr<Tokenizer>> Make(const TokenizerSpec& spec, std::string json);

  std::int32_t vocab() const override { return static_cast<std::int32_t>(tokens_.size()); }
  std::vector<std::int32_t> Encode(std::string_view text) const override;
  std::vector<std::int32_t> EncodeWithSpecial(std::string_view text) const override;
  std::string_view TokenBytes(std::int32_t id, bool with_special) const override;
  std::int32_t TokenId(std::string_view content) const override;
  std::string ToJson() const override { return json_; }
  std::string ConfigJson() const override;
  Hash128 Hash() const override;

 private:
  ByteLevelTokenizer(const TokenizerSpec& spec, std::string json);
  using Ids = std::vector<std::int32_t>;

  static std::vector<std::string> AllTokens(const TokenizerSpec& spec);
  static std::vector<std::string_view> Words(const TokenizerSpec& spec,
                                             const std::vector<std::string>& tokens);
  void EncodeSection(std::string_view text, Ids* ids) const;
  void EncodeText(std::string_view text, Ids* ids) const;
  void EncodePieces(std::string_view text, std::size_t split, Ids* ids) const;
  void EncodeLast(std::string_view piece, Ids* ids) const;

  std::string json_;
  std::vector<std::string> tokens_;  // by id: the bytes that Decode gives
  std::vector<bool> special_;
  std::unordered_map<std::string, std::int32_t> other_ids_;  // of tokens that are not words
  BytePairEncoder encoder_;
  std::unique_ptr<const Nfc> nfc_;  // null: none
  std::vector<WordSplitter> splits_;
  bool prefix_space_;
  std::optional<WordSplitter> last_split_;
  AddedTokenMatcher raw_, normalized_;  // looked for before and after normalization
  Ids prefix_, suffix_;
};

}  // namespace thresher::model
