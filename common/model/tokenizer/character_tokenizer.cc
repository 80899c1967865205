#include "common/model/tokenizer/character_tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "common/base/hash.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

constexpr std::array<std::string_view, 4> kSpecial = {"<pad>", "<bos>", "<eos>", "<unk>"};
constexpr std::int32_t kFirstCharacter = static_cast<std::int32_t>(kSpecial.size());

// A byte-pair model without merges is a table of characters to the `tokenizers` package: text
// between special tokens is cut into characters, each of them its own token or <unk> (fuse_unk is
// off).
class CharacterTokenizer final : public Tokenizer {
 public:
  // `characters`: distinct, ascending.
  explicit CharacterTokenizer(std::u32string characters) : characters_(std::move(characters)) {
    for (char32_t character : characters_) {
      const auto id = kFirstCharacter + static_cast<std::int32_t>(texts_.size());
      ids_.emplace(character, id);
      texts_.push_back(EncodeUtf8(character));
    }
  }

  std::int32_t vocab() const override {
    return kFirstCharacter + static_cast<std::int32_t>(characters_.size());
  }
  std::vector<std::int32_t> Encode(std::string_view text) const override;
  std::vector<std::int32_t> EncodeWithSpecial(std::string_view text) const override {
    return Encode(text);
  }
  std::string_view TokenBytes(std::int32_t id, bool with_special) const override;
  std::int32_t TokenId(std::string_view content) const override;
  std::string ToJson() const override;
  std::string ConfigJson() const override;
  Hash128 Hash() const override { return HashText128(ToJson()); }

 private:
  std::u32string characters_;
  std::vector<std::string> texts_;
  std::unordered_map<char32_t, std::int32_t> ids_;
};

std::vector<std::int32_t> CharacterTokenizer::Encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size());
  while (!text.empty()) {
    const auto special =
        text[0] != '<' ? kSpecial.end() : std::ranges::find_if(kSpecial, [&](std::string_view s) {
          return text.starts_with(s);
        });
    if (special != kSpecial.end()) {
      ids.push_back(static_cast<std::int32_t>(special - kSpecial.begin()));
      text.remove_prefix(special->size());
      continue;
    }
    const Utf8Step step = NextCharacter(text);
    const auto found = step.valid ? ids_.find(step.character) : ids_.end();
    ids.push_back(found == ids_.end() ? kUnk : found->second);
    text.remove_prefix(step.bytes);
  }
  return ids;
}

std::string_view CharacterTokenizer::TokenBytes(std::int32_t id, bool with_special) const {
  if (id < 0 || id >= vocab()) return kReplacement;
  if (id >= kFirstCharacter) return texts_[static_cast<std::size_t>(id - kFirstCharacter)];
  return with_special ? kSpecial[static_cast<std::size_t>(id)] : std::string_view();
}

std::int32_t CharacterTokenizer::TokenId(std::string_view content) const {
  const auto special = std::ranges::find(kSpecial, content);
  if (special != kSpecial.end()) return static_cast<std::int32_t>(special - kSpecial.begin());
  if (content.empty()) return -1;
  const Utf8Step step = NextCharacter(content);
  const auto found = ids_.find(step.character);
  return step.valid && step.bytes == content.size() && found != ids_.end() ? found->second : -1;
}

std::string CharacterTokenizer::ToJson() const {
  Json added = Json::array();
  Json vocab = Json::object();
  for (std::size_t id = 0; id < kSpecial.size(); ++id) {
    added.push_back({{"id", id},
                     {"content", kSpecial[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[std::string(kSpecial[id])] = id;
  }
  for (std::size_t i = 0; i < texts_.size(); ++i) vocab[texts_[i]] = kSpecial.size() + i;
  Json json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = std::move(added);
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = nullptr;
  json["post_processor"] = nullptr;
  json["decoder"] = {{"type", "Fuse"}};
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", kSpecial[kUnk]},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", std::move(vocab)},
                   {"merges", Json::array()}};
  return json.dump(2) + "\n";
}

std::string CharacterTokenizer::ConfigJson() const {
  Json json;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  json["pad_token"] = kSpecial[kPad];
  json["bos_token"] = kSpecial[kBos];
  json["eos_token"] = kSpecial[kEos];
  json["unk_token"] = kSpecial[kUnk];
  json["clean_up_tokenization_spaces"] = false;
  json["model_input_names"] = {"input_ids", "attention_mask"};  // what generate() takes
  json["model_max_length"] = 1'000'000'000;
  return json.dump(2) + "\n";
}

// The first place where two documents differ, as a key path; empty when equal.
std::string FirstDifference(const Json& ours, const Json& theirs, const std::string& path) {
  if (ours == theirs) return "";
  if (ours.is_object() && theirs.is_object()) {
    for (const auto& [key, value] : ours.items()) {
      if (!theirs.contains(key)) return path + key;
      const std::string inner = FirstDifference(value, theirs[key], path + key + ".");
      if (!inner.empty()) return inner;
    }
    for (const auto& [key, value] : theirs.items()) {
      if (!ours.contains(key)) return path + key;
    }
  }
  return path.empty() ? path : path.substr(0, path.size() - 1);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> CharacterTokenizerFromAlphabet(std::string_view alphabet) {
  std::u32string characters;
  for (std::size_t at = 0; at < alphabet.size();) {
    const Utf8Step step = NextCharacter(alphabet.substr(at));
    if (!step.valid) {
      return InvalidArgument("alphabet: malformed UTF-8 at byte " + std::to_string(at));
    }
    characters.push_back(step.character);
    at += step.bytes;
  }
  if (characters.empty())
    return InvalidArgument("alphabet: empty; allowed: at least one character");
  std::ranges::sort(characters);  // the order of scalar values is the order of their UTF-8 bytes
  const auto repeated = std::ranges::adjacent_find(characters);
  if (repeated != characters.end()) {
    return InvalidArgument("alphabet: character '" + EncodeUtf8(*repeated) + "' stands twice");
  }
  return std::unique_ptr<Tokenizer>(std::make_unique<CharacterTokenizer>(std::move(characters)));
}

bool IsCharacterTokenizer(const Json& json) {
  const auto pre_tokenizer = json.find("pre_tokenizer"), decoder = json.find("decoder");
  return (pre_tokenizer == json.end() || pre_tokenizer->is_null()) && decoder != json.end() &&
         decoder->is_object() && decoder->contains("type") && (*decoder)["type"] == "Fuse";
}

Result<std::unique_ptr<Tokenizer>> CharacterTokenizerFromJson(const TokenizerDocument& document,
                                                              const std::string& origin) {
  const auto unusual = [&](const std::string& key) {
    return InvalidArgument(origin + ": key '" + key +
                           "' is not as a character tokenizer of this program writes it");
  };
  const Json& json = document.json;
  if (!json.contains("model") || !json["model"].is_object()) return unusual("model");
  if (!document.has_vocab) return unusual("model.vocab");
  std::string alphabet;
  for (const auto& [token, id] : document.vocab) {
    if (std::ranges::find(kSpecial, token) == kSpecial.end()) alphabet += token;
  }
  auto tokenizer = CharacterTokenizerFromAlphabet(alphabet);
  if (!tokenizer.ok()) return tokenizer.status().WithContext(origin + ": key 'model.vocab'");
  THRESHER_ASSIGN_OR_RETURN(const TokenizerDocument ours,
                            ParseTokenizer((*tokenizer)->ToJson(), origin));
  for (std::size_t i = 0; i < std::max(ours.vocab.size(), document.vocab.size()); ++i) {
    if (i >= ours.vocab.size() || i >= document.vocab.size()) return unusual("model.vocab");
    if (ours.vocab[i] != document.vocab[i]) return unusual("model.vocab." + ours.vocab[i].first);
  }
  if (ours.merges != document.merges) return unusual("model.merges");
  const std::string difference = FirstDifference(ours.json, json, "");
  if (!difference.empty() || ours.json != json) return unusual(difference);
  return tokenizer;
}

}  // namespace thresher::model
