#include "common/model/tokenizer.h"

#include <algorithm>
#include <charconv>

#include "common/data/files.h"
#include "common/model/json_fields.h"
#include "common/model/tokenizer/byte_level_tokenizer.h"
#include "common/model/tokenizer/character_tokenizer.h"
#include "common/model/tokenizer/tokenizer_document.h"
#include "common/model/tokenizer/tokenizer_spec.h"
#include "common/model/tokenizer/tokenizer_stages.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

constexpr char kJson[] = "tokenizer.json";
constexpr char kConfig[] = "tokenizer_config.json";
constexpr char kTemplates[] = "additional_chat_templates";  // folder of NAME.jinja

// Names of what a folder's tokenizer has beside tokenizer.json, those that are there.
std::vector<std::string> NamesBeside(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const char* name : {kConfig, "chat_template.jinja", "special_tokens_map.json",
                           "added_tokens.json", "vocab.json", "merges.txt"}) {
    const Result<FileInfo> info = Files().Stat(folder / name, /*follow_links=*/true);
    if (info.ok() && info->kind == FileInfo::Kind::kFile) names.emplace_back(name);
  }
  for (const std::string& name : NamesIn(folder / kTemplates)) {
    if (std::filesystem::path(name).extension() != ".jinja") continue;
    names.push_back(std::string(kTemplates) + "/" + name);
  }
  return names;
}

// Transformers takes added tokens from the configuration as well: it must not contradict.
Status CheckConfig(const std::string& text, const std::string& origin, const Tokenizer& tokenizer) {
  THRESHER_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(text, origin));
  const auto added = json.find("added_tokens_decoder");
  if (added == json.end() || !added->is_object()) return Status::Ok();
  for (const auto& [key, token] : added->items()) {
    std::int32_t id = -1;
    const auto read = std::from_chars(key.data(), key.data() + key.size(), id);
    const std::string place = "added_tokens_decoder." + key;
    if (read.ptr != key.data() + key.size() || read.ec != std::errc() || !token.is_object() ||
        !token.contains("content") || !token["content"].is_string()) {
      return RefuseKey(origin, place,
                       "is no token with an id; allowed: \"id\": {\"content\": ...}");
    }
    const auto content = token["content"].get<std::string>();
    if (tokenizer.TokenId(content) != id) {
      return RefuseKey(
          origin, place,
          "is " + Quoted(content) + "; allowed: tokens with the ids of tokenizer.json");
    }
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromAlphabet(std::string_view alphabet) {
  return CharacterTokenizerFromAlphabet(alphabet);
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view text,
                                                       const std::string& origin) {
  THRESHER_ASSIGN_OR_RETURN(TokenizerDocument document, ParseTokenizer(text, origin));
  if (IsCharacterTokenizer(document.json)) return CharacterTokenizerFromJson(document, origin);
  THRESHER_ASSIGN_OR_RETURN(const TokenizerSpec spec,
                            ReadTokenizerSpec(std::move(document), origin));
  return ByteLevelTokenizer::Make(spec, std::string(text));
}

std::string Tokenizer::Decode(std::span<const std::int32_t> ids, bool with_special) const {
  std::string bytes;
  for (std::int32_t id : ids) bytes += TokenBytes(id, with_special);
  return ValidPrefix(bytes) == bytes.size() ? bytes : ReplaceMalformed(bytes);
}

std::vector<TokenizerFile> Tokenizer::Files() const {
  std::vector<TokenizerFile> files = {{kJson, ToJson()}};
  if (beside_.empty()) {
    files.push_back({kConfig, ConfigJson()});
  } else {
    files.insert(files.end(), beside_.begin(), beside_.end());
  }
  return files;
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(const std::string json, ReadFile(folder / kJson));
  THRESHER_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::FromJson(json, (folder / kJson).string()));
  for (const std::string& name : NamesBeside(folder)) {
    THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadFile(folder / name));
    if (name == kConfig) {
      THRESHER_RETURN_IF_ERROR(CheckConfig(bytes, (folder / name).string(), *tokenizer));
    }
    tokenizer->beside_.push_back({name, std::move(bytes)});
  }
  return tokenizer;
}

Status SaveTokenizer(const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  for (const TokenizerFile& file : tokenizer.Files()) {
    const std::filesystem::path path = folder / file.name;
    THRESHER_RETURN_IF_ERROR(CreateDirectories(path.parent_path()));
    THRESHER_RETURN_IF_ERROR(WriteFileAtomic(path, file.bytes));
  }
  return Status::Ok();
}

}  // namespace thresher::model
