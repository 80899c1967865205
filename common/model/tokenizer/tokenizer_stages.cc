#include "common/model/tokenizer/tokenizer_stages.h"

#include <algorithm>
#include <functional>

#include "common/model/tokenizer/tokenizer_spec.h"

namespace thresher::model {
namespace {

// One stage, or the stages of a Sequence, in order: `read` is called with the stage and its key.
// `list`: the key that holds a Sequence's stages.
Status ForEachStage(const Json& stage, const std::string& origin, const std::string& key,
                    const std::string& list, const std::string& allowed,
                    const std::function<Status(const Json&, const std::string&)>& read) {
  if (!stage.is_object() || !stage.contains("type") || !stage["type"].is_string()) {
    return RefuseKey(origin, key, "has no type; allowed: " + allowed);
  }
  if (stage["type"] != "Sequence") return read(stage, key);
  THRESHER_RETURN_IF_ERROR(OnlyKeys(stage, origin, key + ".", {"type", list}));
  if (!stage.contains(list) || !stage[list].is_array()) {
    return RefuseKey(origin, key + "." + list, "is no array; allowed: an array of " + allowed);
  }
  for (std::size_t i = 0; i < stage[list].size(); ++i) {
    const std::string place = key + "." + list + "[" + std::to_string(i) + "]";
    const Json& inner = stage[list][i];
    if (!inner.is_object() || !inner.contains("type") || !inner["type"].is_string()) {
      return RefuseKey(origin, place, "has no type; allowed: " + allowed);
    }
    THRESHER_RETURN_IF_ERROR(read(inner, place));
  }
  return Status::Ok();
}

Status Unknown(const Json& stage, const std::string& origin, const std::string& key,
               const std::string& allowed) {
  return RefuseKey(origin, key + ".type", "is " + Shown(stage["type"]) + "; allowed: " + allowed);
}

struct ByteLevelOptions {
  bool prefix_space = false;
  bool split = false;
};

Result<ByteLevelOptions> ReadByteLevel(const Json& stage, const std::string& origin,
                                       const std::string& key) {
  JsonFields fields(stage, origin, key + ".");
  ByteLevelOptions options;
  options.prefix_space = fields.Bool("add_prefix_space");
  fields.Bool("trim_offsets");
  options.split = fields.Bool("use_regex", true);
  THRESHER_RETURN_IF_ERROR(fields.status());
  THRESHER_RETURN_IF_ERROR(OnlyKeys(stage, origin, key + ".",
                                    {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  return options;
}

// Isolated pieces, or the same written as: remove what lies between matches. The patterns match
// everything, so nothing does.
Status ReadSplit(const Json& stage, const std::string& origin, const std::string& key,
                 TokenizerSpec* spec) {
  THRESHER_RETURN_IF_ERROR(
      OnlyKeys(stage, origin, key + ".", {"type", "pattern", "behavior", "invert"}));
  JsonFields fields(stage, origin, key + ".");
  const std::string behavior = fields.Text("behavior");
  const bool invert = fields.Bool("invert");
  THRESHER_RETURN_IF_ERROR(fields.status());
  if (behavior == "Removed" ? !invert : behavior != "Isolated") {
    fields.Fail("behavior", "\"Isolated\", or \"Removed\" with invert");
  }
  const Json* pattern = fields.Find("pattern");
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->contains("Regex") || !(*pattern)["Regex"].is_string()) {
    fields.Fail("pattern", "{\"Regex\": one of " + KnownPatterns() + "}");
    return fields.status();
  }
  const std::string regex = (*pattern)["Regex"].get<std::string>();
  const auto known = RecognisePattern(regex);
  if (!known) {
    return RefuseKey(origin, key + ".pattern.Regex",
                     "is " + Quoted(regex) + "; allowed: " + KnownPatterns());
  }
  spec->splits.push_back(*known);
  return fields.status();
}

// The ids that stand before (`prefix`) and after the text in a template.
class TemplateReader {
 public:
  TemplateReader(const Json& stage, const std::string& origin, std::string key, std::int64_t vocab)
      : stage_(stage), origin_(origin), key_(std::move(key)), vocab_(vocab) {}

  Status Read(TokenizerSpec* spec) const {
    THRESHER_RETURN_IF_ERROR(
        OnlyKeys(stage_, origin_, key_ + ".", {"type", "single", "pair", "special_tokens"}));
    const auto single = stage_.find("single");
    if (single == stage_.end() || !single->is_array()) {
      return RefuseKey(origin_, key_ + ".single",
                       "is no array; allowed: tokens and one sequence A");
    }
    bool text = false;
    for (std::size_t i = 0; i < single->size(); ++i) {
      const std::string place = key_ + ".single[" + std::to_string(i) + "]";
      const Json& piece = (*single)[i];
      if (Named(piece, "Sequence") == "A" && !text) {
        text = true;
        continue;
      }
      const std::string token = Named(piece, "SpecialToken");
      if (token.empty()) {
        return RefuseKey(origin_, place,
                         "is " + Shown(piece) + "; allowed: a SpecialToken, one Sequence A");
      }
      THRESHER_RETURN_IF_ERROR(AddIds(token, text ? &spec->suffix : &spec->prefix));
    }
    return text ? Status::Ok()
                : RefuseKey(origin_, key_ + ".single", "has no Sequence A; allowed: one");
  }

 private:
  // The id of a piece {"kind": {"id": ...}}; empty when it is something else.
  static std::string Named(const Json& piece, const std::string& kind) {
    if (!piece.is_object() || piece.size() != 1 || !piece.contains(kind)) return "";
    const Json& inner = piece[kind];
    if (!inner.is_object() || !inner.contains("id") || !inner["id"].is_string()) return "";
    return inner["id"].get<std::string>();
  }

  Status AddIds(const std::string& token, std::vector<std::int32_t>* ids) const {
    const std::string place = key_ + ".special_tokens." + token + ".ids";
    const std::string allowed = "allowed: an array of ids, 0 to " + std::to_string(vocab_ - 1);
    const auto tokens = stage_.find("special_tokens");
    if (tokens == stage_.end() || !tokens->is_object() || !tokens->contains(token) ||
        !(*tokens)[token].is_object() || !(*tokens)[token].contains("ids") ||
        !(*tokens)[token]["ids"].is_array()) {
      return RefuseKey(origin_, place, "is missing or no array; " + allowed);
    }
    for (const Json& id : (*tokens)[token]["ids"]) {
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 ||
          id.get<std::int64_t>() >= vocab_) {
        return RefuseKey(origin_, place, "has " + Shown(id) + "; " + allowed);
      }
      ids->push_back(id.get<std::int32_t>());
    }
    return Status::Ok();
  }

  const Json& stage_;
  const std::string& origin_;
  std::string key_;
  std::int64_t vocab_;
};

const Json& StageOf(const Json& json, const char* key) {
  static const Json kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

}  // namespace

std::string Shown(const Json& value) {
  constexpr std::size_t kMost = 60;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

std::string Quoted(std::string_view text) { return Shown(Json(std::string(text))); }

Status RefuseKey(const std::string& origin, const std::string& key, const std::string& problem) {
  return InvalidArgument(origin + ": key '" + key + "' " + problem);
}

Status OnlyKeys(const Json& object, const std::string& origin, const std::string& prefix,
                std::initializer_list<std::string_view> allowed) {
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(allowed, key) != allowed.end()) continue;
    std::string names;
    for (std::string_view name : allowed) names += (names.empty() ? "" : ", ") + std::string(name);
    return RefuseKey(origin, prefix + key, "is not known; allowed: " + names);
  }
  return Status::Ok();
}

Status ReadNormalizer(const Json& json, const std::string& origin, TokenizerSpec* spec) {
  const Json& stage = StageOf(json, "normalizer");
  if (stage.is_null()) return Status::Ok();
  const std::string allowed = "null, NFC";
  return ForEachStage(stage, origin, "normalizer", "normalizers", allowed,
                      [&](const Json& inner, const std::string& key) {
                        if (inner["type"] != "NFC") return Unknown(inner, origin, key, allowed);
                        spec->nfc = true;
                        return OnlyKeys(inner, origin, key + ".", {"type"});
                      });
}

Status ReadPreTokenizer(const Json& json, const std::string& origin, TokenizerSpec* spec) {
  const std::string allowed = "ByteLevel, or a Sequence of Split and ByteLevel";
  bool byte_level = false;
  const auto read = [&](const Json& inner, const std::string& key) -> Status {
    if (byte_level) return RefuseKey(origin, key, "follows ByteLevel; allowed: ByteLevel last");
    if (inner["type"] == "Split") return ReadSplit(inner, origin, key, spec);
    if (inner["type"] != "ByteLevel") return Unknown(inner, origin, key, allowed);
    THRESHER_ASSIGN_OR_RETURN(const ByteLevelOptions options, ReadByteLevel(inner, origin, key));
    byte_level = true;
    spec->prefix_space = options.prefix_space;
    if (options.split) spec->last_split = SplitPattern::kGpt2;
    return Status::Ok();
  };
  THRESHER_RETURN_IF_ERROR(ForEachStage(StageOf(json, "pre_tokenizer"), origin, "pre_tokenizer",
                                        "pretokenizers", allowed, read));
  if (!byte_level)
    return RefuseKey(origin, "pre_tokenizer", "has no ByteLevel; allowed: " + allowed);
  return Status::Ok();
}

Status ReadDecoder(const Json& json, const std::string& origin) {
  const Json& stage = StageOf(json, "decoder");
  if (!stage.is_object() || !stage.contains("type") || stage["type"] != "ByteLevel") {
    return RefuseKey(origin, "decoder", "is another one; allowed: ByteLevel");
  }
  return ReadByteLevel(stage, origin, "decoder").status();
}

Status ReadPostProcessor(const Json& json, const std::string& origin, TokenizerSpec* spec) {
  const Json& stage = StageOf(json, "post_processor");
  if (stage.is_null()) return Status::Ok();
  std::int64_t vocab = static_cast<std::int64_t>(spec->vocab.size());
  for (const AddedToken& token : spec->added) vocab = std::max<std::int64_t>(vocab, token.id + 1);
  const std::string allowed = "null, ByteLevel, TemplateProcessing";
  bool seen = false;
  return ForEachStage(stage, origin, "post_processor", "processors", allowed,
                      [&](const Json& inner, const std::string& key) -> Status {
                        if (inner["type"] == "ByteLevel")
                          return ReadByteLevel(inner, origin, key).status();
                        if (inner["type"] != "TemplateProcessing")
                          return Unknown(inner, origin, key, allowed);
                        if (seen)
                          return RefuseKey(origin, key, "is a second template; allowed: one");
                        seen = true;
                        return TemplateReader(inner, origin, key, vocab).Read(spec);
                      });
}

}  // namespace thresher::model
