#include "common/model/tokenizer/tokenizer_spec.h"

#include <algorithm>
#include <limits>
#include <span>
#include <unordered_map>

#include "common/model/tokenizer/byte_alphabet.h"
#include "common/model/tokenizer/tokenizer_stages.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

using Ids = std::unordered_map<std::string_view, std::int32_t>;

// The options of the model that change what a byte-level vocabulary encodes must be off; those that
// only concern characters outside the vocabulary cannot apply, for it has every byte.
Status ReadModelOptions(const Json& json, const std::string& origin, TokenizerSpec* spec) {
  const auto found = json.find("model");
  if (found == json.end() || !found->is_object()) {
    return RefuseKey(origin, "model", "is missing or no object; allowed: a BPE model");
  }
  JsonFields fields(*found, origin, "model.");
  if (fields.Text("type", "BPE") != "BPE") fields.Fail("type", "\"BPE\"");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.Text(key, "").empty()) fields.Fail(key, "null, \"\"");
  }
  const Json* dropout = fields.Find("dropout");
  if (dropout != nullptr && *dropout != 0.0) fields.Fail("dropout", "null, 0");
  fields.Text("unk_token", "");
  fields.Bool("fuse_unk", false);
  fields.Bool("byte_fallback", false);
  spec->ignore_merges = fields.Bool("ignore_merges", false);
  THRESHER_RETURN_IF_ERROR(fields.status());
  return OnlyKeys(
      *found, origin, "model.",
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
}

// Fills spec->vocab by id.
Status ReadVocab(TokenizerDocument* document, const std::string& origin, TokenizerSpec* spec) {
  auto& entries = document->vocab;
  if (!document->has_vocab || entries.empty()) {
    return RefuseKey(origin, "model.vocab", "is missing or empty; allowed: an object of tokens");
  }
  const auto size = static_cast<std::int64_t>(entries.size());
  if (size > std::numeric_limits<std::int32_t>::max()) {
    return RefuseKey(origin, "model.vocab", "has too many tokens");
  }
  std::vector<bool> taken(entries.size());
  spec->vocab.resize(entries.size());
  for (auto& [token, id] : entries) {
    if (token.empty()) return RefuseKey(origin, "model.vocab", "has an empty token");
    if (id < 0 || id >= size) {
      return RefuseKey(origin, "model.vocab",
                       "gives " + Quoted(token) + " the id " + std::to_string(id) +
                           "; allowed: 0 to " + std::to_string(size - 1) +
                           ", each once (there are " + std::to_string(size) + " tokens)");
    }
    std::string& place = spec->vocab[static_cast<std::size_t>(id)];
    if (taken[static_cast<std::size_t>(id)]) {
      return RefuseKey(origin, "model.vocab",
                       "gives " + Quoted(token) + " the id " + std::to_string(id) + ", the id of " +
                           Quoted(place) + "; allowed: an id of its own");
    }
    taken[static_cast<std::size_t>(id)] = true;
    place = std::move(token);
  }
  return Status::Ok();
}

// Ids by token; borrows spec.vocab.
Result<Ids> IndexVocab(const TokenizerSpec& spec, const std::string& origin) {
  Ids ids;
  ids.reserve(spec.vocab.size());
  for (std::size_t id = 0; id < spec.vocab.size(); ++id) {
    if (!ids.emplace(spec.vocab[id], static_cast<std::int32_t>(id)).second) {
      return RefuseKey(origin, "model.vocab", "has " + Quoted(spec.vocab[id]) + " twice");
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string token = EncodeUtf8(CharacterOfByte(static_cast<std::uint8_t>(byte)));
    if (!ids.contains(token)) {
      return RefuseKey(origin, "model.vocab",
                       "lacks '" + token + "', byte " + std::to_string(byte) +
                           "; allowed: a vocabulary with all 256 bytes");
    }
  }
  return ids;
}

Status ReadMerges(const TokenizerDocument& document, const std::string& origin, const Ids& ids,
                  TokenizerSpec* spec) {
  if (!document.has_merges) {
    return RefuseKey(origin, "model.merges", "is missing or no array; allowed: an array of merges");
  }
  spec->merges.reserve(document.merges.size());
  for (const auto& [left, right] : document.merges) {
    const std::string names[] = {left, right, left + right};
    std::int32_t found[3];
    for (int i = 0; i < 3; ++i) {
      const auto id = ids.find(names[i]);
      if (id == ids.end()) {
        return RefuseKey(origin, "model.merges[" + std::to_string(spec->merges.size()) + "]",
                         "needs " + Quoted(names[i]) + "; allowed: tokens of model.vocab");
      }
      found[i] = id->second;
    }
    spec->merges.push_back({found[0], found[1], found[2]});
  }
  return Status::Ok();
}

Result<AddedToken> ReadAddedToken(const Json& json, const std::string& origin,
                                  const std::string& key) {
  if (!json.is_object()) return RefuseKey(origin, key, "is no object; allowed: an added token");
  JsonFields fields(json, origin, key + ".");
  AddedToken token;
  token.id = fields.Int("id", 0, std::numeric_limits<std::int32_t>::max());
  token.content = fields.Text("content");
  if (token.content.empty()) fields.Fail("content", "a string that is not empty");
  token.single_word = fields.Bool("single_word");
  token.lstrip = fields.Bool("lstrip");
  token.rstrip = fields.Bool("rstrip");
  token.normalized = fields.Bool("normalized");
  token.special = fields.Bool("special");
  THRESHER_RETURN_IF_ERROR(fields.status());
  THRESHER_RETURN_IF_ERROR(
      OnlyKeys(json, origin, key + ".",
               {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  return token;
}

// An added token has the id of the vocabulary or the next one after it, the only ids that the
// `tokenizers` package gives, whatever the file says.
Status ReadAddedTokens(const Json& json, const std::string& origin, const Ids& ids,
                       TokenizerSpec* spec) {
  const auto found = json.find("added_tokens");
  if (found == json.end() || found->is_null()) return Status::Ok();
  if (!found->is_array()) {
    return RefuseKey(origin, "added_tokens", "is no array; allowed: an array of added tokens");
  }
  Ids seen;
  auto next = static_cast<std::int32_t>(spec->vocab.size());
  spec->added.reserve(found->size());  // `seen` refers to their texts
  for (std::size_t i = 0; i < found->size(); ++i) {
    const std::string key = "added_tokens[" + std::to_string(i) + "]";
    THRESHER_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken((*found)[i], origin, key));
    const auto known = ids.find(token.content);
    const std::int32_t id = known != ids.end() ? known->second : next++;
    if (token.id != id) {
      return RefuseKey(origin, key + ".id",
                       "is " + std::to_string(token.id) + "; allowed: " + std::to_string(id) +
                           ", the id of " + Quoted(token.content) + " in its place");
    }
    spec->added.push_back(std::move(token));
    if (!seen.emplace(spec->added.back().content, id).second) {
      return RefuseKey(origin, key + ".content", "stands twice");
    }
  }
  return Status::Ok();
}

}  // namespace

Result<TokenizerSpec> ReadTokenizerSpec(TokenizerDocument document, const std::string& origin) {
  TokenizerSpec spec;
  const Json& json = document.json;
  JsonFields fields(json, origin);
  if (fields.Text("version", "1.0") != "1.0") fields.Fail("version", "\"1.0\"");
  THRESHER_RETURN_IF_ERROR(fields.status());
  THRESHER_RETURN_IF_ERROR(
      OnlyKeys(json, origin, "",
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"}));
  THRESHER_RETURN_IF_ERROR(ReadModelOptions(json, origin, &spec));
  THRESHER_RETURN_IF_ERROR(ReadNormalizer(json, origin, &spec));
  THRESHER_RETURN_IF_ERROR(ReadPreTokenizer(json, origin, &spec));
  THRESHER_RETURN_IF_ERROR(ReadDecoder(json, origin));
  THRESHER_RETURN_IF_ERROR(ReadVocab(&document, origin, &spec));
  THRESHER_ASSIGN_OR_RETURN(const Ids ids, IndexVocab(spec, origin));
  THRESHER_RETURN_IF_ERROR(ReadMerges(document, origin, ids, &spec));
  THRESHER_RETURN_IF_ERROR(ReadAddedTokens(json, origin, ids, &spec));
  THRESHER_RETURN_IF_ERROR(ReadPostProcessor(json, origin, &spec));
  return spec;
}

}  // namespace thresher::model
