#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/model/json_fields.h"

namespace thresher::model {

// A tokenizer.json taken apart: the two large tables in the order of the file, all else as a
// document in which `model.vocab` and `model.merges` are empty. Without an object or an array
// there, `has_vocab` or `has_merges` is false.
struct TokenizerDocument {
  Json json;
  bool has_vocab = false;
  bool has_merges = false;
  std::vector<std::pair<std::string, std::int64_t>> vocab;  // token, id
  std::vector<std::pair<std::string, std::string>> merges;  // left, right
};

// Reads the text in one pass, in time linear in its size. A merge may be "left right" or
// ["left", "right"]; a first line "#version..." of old files is passed over.
// Errors: kDataLoss (not JSON; with the byte), kInvalidArgument (no object; a table with other
// elements or that stands twice, an object with thousands of keys), naming `origin`
// and key.
Result<TokenizerDocument> ParseTokenizer(std::string_view text, const std::string& origin);

}  // namespace thresher::model
