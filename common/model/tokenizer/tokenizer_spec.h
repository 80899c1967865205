#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/model/tokenizer/added_tokens.h"
#include "common/model/tokenizer/byte_pair_encoder.h"
#include "common/model/tokenizer/split_pattern.h"
#include "common/model/tokenizer/tokenizer_document.h"

namespace thresher::model {

// What a byte-level tokenizer.json says, checked. Ids are dense: those of `model.vocab` are 0 to
// vocab.size() - 1, added tokens outside it follow in their order.
struct TokenizerSpec {
  bool nfc = false;
  std::vector<SplitPattern> splits;        // one after the other, each within the pieces before
  bool prefix_space = false;               // then: every piece begins with a space
  std::optional<SplitPattern> last_split;  // and is cut again
  std::vector<std::string> vocab;          // model.vocab by id, as written
  std::vector<Merge> merges;
  bool ignore_merges = false;
  std::vector<AddedToken> added;     // in the order of the file
  std::vector<std::int32_t> prefix;  // tokens the post-processor puts before a text
  std::vector<std::int32_t> suffix;  // and after it
};

// The shape that is read (anything else is kInvalidArgument naming `origin`, key and what is
// allowed):
//   model           BPE without dropout, prefix and suffix; a vocabulary with all 256 bytes
//   normalizer      null, NFC, or a Sequence of such
//   pre_tokenizer   ByteLevel, or a Sequence of Split (a known pattern, isolated) and ByteLevel
//   post_processor  null, ByteLevel, TemplateProcessing, or a Sequence of such
//   decoder         ByteLevel
// `truncation` and `padding` are not applied: Transformers sets both with every call.
Result<TokenizerSpec> ReadTokenizerSpec(TokenizerDocument document, const std::string& origin);

}  // namespace thresher::model
