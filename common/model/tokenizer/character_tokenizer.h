#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/model/tokenizer.h"
#include "common/model/tokenizer/tokenizer_document.h"

namespace thresher::model {

// The kind that Tokenizer::FromAlphabet makes (tokenizer.h).
Result<std::unique_ptr<Tokenizer>> CharacterTokenizerFromAlphabet(std::string_view alphabet);

// Whether the file means to be of that kind: nothing is cut, and decoding only joins.
bool IsCharacterTokenizer(const Json& json);

// Only what this class writes is read; anything else is kInvalidArgument naming `origin` and key.
Result<std::unique_ptr<Tokenizer>> CharacterTokenizerFromJson(const TokenizerDocument& document,
                                                              const std::string& origin);

}  // namespace thresher::model
