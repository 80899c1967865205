#include "common/model/tokenizer/byte_level_tokenizer.h"

#include <algorithm>

#include "common/base/hash.h"
#include "common/model/json_fields.h"
#include "common/model/tokenizer/byte_alphabet.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {

Result<std::unique_ptr<Tokenizer>> ByteLevelTokenizer::Make(const TokenizerSpec& spec,
                                                            std::string json) {
  std::unique_ptr<ByteLevelTokenizer> tokenizer(new ByteLevelTokenizer(spec, std::move(json)));
  if (spec.nfc) {
    THRESHER_ASSIGN_OR_RETURN(tokenizer->nfc_, Nfc::Make());
  }
  for (const bool special : {true, false}) {  // a special token goes before an equal one
    for (const AddedToken& token : spec.added) {
      if (token.special != special) continue;
      if (!token.normalized) {
        tokenizer->raw_.Add(token.content, token);
      } else if (tokenizer->nfc_ == nullptr) {
        tokenizer->normalized_.Add(token.content, token);
      } else {
        tokenizer->normalized_.Add(tokenizer->nfc_->Normalize(token.content), token);
      }
    }
  }
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

// The bytes of every id. A token with a character outside the byte alphabet stands for its own
// text, added tokens included.
std::vector<std::string> ByteLevelTokenizer::AllTokens(const TokenizerSpec& spec) {
  std::vector<std::string> tokens;
  for (const std::string& token : spec.vocab) tokens.push_back(BytesOfToken(token).value_or(token));
  for (const AddedToken& token : spec.added) {
    if (token.id < static_cast<std::int32_t>(tokens.size())) continue;  // of the vocabulary
    tokens.push_back(BytesOfToken(token.content).value_or(token.content));
  }
  return tokens;
}

// What words can be made of: the tokens of the vocabulary that spell bytes.
std::vector<std::string_view> ByteLevelTokenizer::Words(const TokenizerSpec& spec,
                                                        const std::vector<std::string>& tokens) {
  std::vector<std::string_view> words(tokens.size());
  for (std::size_t id = 0; id < spec.vocab.size(); ++id) {
    if (BytesOfToken(spec.vocab[id])) words[id] = tokens[id];
  }
  return words;
}

ByteLevelTokenizer::ByteLevelTokenizer(const TokenizerSpec& spec, std::string json)
    : json_(std::move(json)),
      tokens_(AllTokens(spec)),
      special_(tokens_.size()),
      encoder_(Words(spec, tokens_), spec.merges, spec.ignore_merges),
      prefix_space_(spec.prefix_space),
      prefix_(spec.prefix),
      suffix_(spec.suffix) {
  for (SplitPattern pattern : spec.splits) splits_.emplace_back(pattern);
  if (spec.last_split) last_split_.emplace(*spec.last_split);
  for (std::size_t id = 0; id < spec.vocab.size(); ++id) {
    if (!BytesOfToken(spec.vocab[id])) other_ids_.emplace(spec.vocab[id], id);
  }
  for (const AddedToken& token : spec.added) {
    other_ids_.emplace(token.content, token.id);
    if (token.special) special_[static_cast<std::size_t>(token.id)] = true;
  }
}

std::vector<std::int32_t> ByteLevelTokenizer::Encode(std::string_view text) const {
  Ids ids;
  ids.reserve(text.size() / 3);
  std::string repaired;
  if (ValidPrefix(text) < text.size()) text = repaired = ReplaceMalformed(text);
  if (raw_.empty()) {
    EncodeSection(text, &ids);
    return ids;
  }
  for (const Segment& segment : raw_.Find(text)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      EncodeSection(text.substr(segment.begin, segment.end - segment.begin), &ids);
    }
  }
  return ids;
}

std::vector<std::int32_t> ByteLevelTokenizer::EncodeWithSpecial(std::string_view text) const {
  Ids ids = prefix_;
  const Ids inner = Encode(text);
  ids.insert(ids.end(), inner.begin(), inner.end());
  ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

void ByteLevelTokenizer::EncodeSection(std::string_view text, Ids* ids) const {
  std::string normal;
  if (nfc_ != nullptr) text = normal = nfc_->Normalize(text);
  if (normalized_.empty()) {
    EncodeText(text, ids);
    return;
  }
  for (const Segment& segment : normalized_.Find(text)) {
    if (segment.id >= 0) {
      ids->push_back(segment.id);
    } else {
      EncodeText(text.substr(segment.begin, segment.end - segment.begin), ids);
    }
  }
}

void ByteLevelTokenizer::EncodeText(std::string_view text, Ids* ids) const {
  if (!text.empty()) EncodePieces(text, 0, ids);
}

void ByteLevelTokenizer::EncodePieces(std::string_view text, std::size_t split, Ids* ids) const {
  if (split == splits_.size()) {
    EncodeLast(text, ids);
    return;
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = splits_[split].PieceEnd(text, at);
    EncodePieces(text.substr(at, end - at), split + 1, ids);
    at = end;
  }
}

void ByteLevelTokenizer::EncodeLast(std::string_view piece, Ids* ids) const {
  std::string prefixed;
  if (prefix_space_ && piece[0] != ' ') piece = prefixed = " " + std::string(piece);
  if (!last_split_) {
    encoder_.Encode(piece, ids);
    return;
  }
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t end = last_split_->PieceEnd(piece, at);
    encoder_.Encode(piece.substr(at, end - at), ids);
    at = end;
  }
}

std::string_view ByteLevelTokenizer::TokenBytes(std::int32_t id, bool with_special) const {
  if (id < 0 || id >= vocab()) return kReplacement;
  const auto at = static_cast<std::size_t>(id);
  return special_[at] && !with_special ? std::string_view() : std::string_view(tokens_[at]);
}

std::int32_t ByteLevelTokenizer::TokenId(std::string_view content) const {
  const auto other = other_ids_.find(std::string(content));
  if (other != other_ids_.end()) return other->second;
  const auto bytes = BytesOfToken(content);
  return bytes ? encoder_.Find(*bytes) : -1;
}

std::string ByteLevelTokenizer::ConfigJson() const {
  Json json;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  json["clean_up_tokenization_spaces"] = false;
  json["model_input_names"] = {"input_ids", "attention_mask"};
  return json.dump(2) + "\n";
}

Hash128 ByteLevelTokenizer::Hash() const { return HashText128(json_); }

}  // namespace thresher::model
