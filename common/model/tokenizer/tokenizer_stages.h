#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/model/json_fields.h"

namespace thresher::model {

struct TokenizerSpec;

// The stages around the model in a tokenizer.json, as ReadTokenizerSpec (tokenizer_spec.h) lists
// them. `json` is the whole document. Error: kInvalidArgument naming `origin`, key and what is
// allowed.
Status ReadNormalizer(const Json& json, const std::string& origin, TokenizerSpec* spec);
Status ReadPreTokenizer(const Json& json, const std::string& origin, TokenizerSpec* spec);
Status ReadDecoder(const Json& json, const std::string& origin);
// Needs spec->vocab and spec->added: the template's ids must be those of tokens.
Status ReadPostProcessor(const Json& json, const std::string& origin, TokenizerSpec* spec);

// A value, or a text as a JSON string, for an error message: in ASCII, cut when it is long.
std::string Shown(const Json& value);
std::string Quoted(std::string_view text);

// "ORIGIN: key 'KEY' PROBLEM" as kInvalidArgument.
Status RefuseKey(const std::string& origin, const std::string& key, const std::string& problem);

// Error: kInvalidArgument when `object` has a key that is not in `allowed`.
Status OnlyKeys(const Json& object, const std::string& origin, const std::string& prefix,
                std::initializer_list<std::string_view> allowed);

}  // namespace thresher::model
