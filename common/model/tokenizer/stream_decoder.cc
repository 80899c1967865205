#include "common/model/tokenizer/stream_decoder.h"

#include <utility>

#include "common/model/tokenizer/utf8.h"

namespace thresher::model {

std::string StreamDecoder::Append(std::int32_t id) {
  pending_ += tokenizer_.TokenBytes(id, with_special_);
  std::size_t ready = 0;
  while (ready < pending_.size()) {
    const Utf8Step step = NextCharacter(std::string_view(pending_).substr(ready));
    if (step.truncated) break;
    ready += step.bytes;
  }
  std::string text = ReplaceMalformed(std::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return text;
}

std::string StreamDecoder::Finish() { return ReplaceMalformed(std::exchange(pending_, {})); }

}  // namespace thresher::model
