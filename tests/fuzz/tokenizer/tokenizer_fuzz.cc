// libFuzzer target over tokenizer.json: whatever is read must encode to ids in range, decode them
// alike at once and id by id, and read back from what it writes. Nothing may crash or hang.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/check.h"
#include "common/model/tokenizer.h"
#include "common/model/tokenizer/stream_decoder.h"

namespace {

using thresher::model::StreamDecoder;
using thresher::model::Tokenizer;

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<std::int32_t> ids = tokenizer.EncodeWithSpecial(text);
  for (const std::int32_t id : ids) {
    THRESHER_CHECK(id >= 0 && id < tokenizer.vocab(), "an id out of range");
  }
  THRESHER_CHECK(ids.size() >= tokenizer.Encode(text).size(), "special tokens take ids away");
  for (const bool special : {false, true}) {
    StreamDecoder decoder(tokenizer, special);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += decoder.Append(id);
    streamed += decoder.Finish();
    THRESHER_CHECK(streamed == tokenizer.Decode(ids, special), "a stream that decodes otherwise");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = Tokenizer::FromJson(input, "fuzz");
  if (!tokenizer.ok()) {
    THRESHER_CHECK(tokenizer.status().message().find("fuzz") != std::string::npos, "no origin");
    return 0;
  }
  CheckText(**tokenizer,
            "It's 12345 <|im_start|> caf\xC3\xA9 e\xCC\x81 \xE4\xB8\xAD\n\n  \xF0\x9F\x98\x80 "
            "\xFF\xE2\x82 x");
  CheckText(**tokenizer, input.substr(input.size() - std::min<std::size_t>(input.size(), 512)));
  CheckText(**tokenizer, std::string(300, 'a'));
  const auto back = Tokenizer::FromJson((*tokenizer)->ToJson(), "fuzz");
  THRESHER_CHECK(back.ok() && (*back)->Hash() == (*tokenizer)->Hash(), "a tokenizer that changes");
  return 0;
}
