#pragma once

#include <cstdint>
#include <string>

#include "common/model/tokenizer.h"

namespace thresher::model {

// Decodes ids as they come. Everything Append and Finish return, joined, is Decode of all the ids;
// no return value ends within a UTF-8 character. What could still become a character (at most three
// bytes) waits for the next id. Borrows the tokenizer; one owner.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool with_special = false)
      : tokenizer_(tokenizer), with_special_(with_special) {}

  // The text that `id` completes; often empty within a character.
  std::string Append(std::int32_t id);
  // The rest: U+FFFD for a character that was cut off. Then a new stream may begin.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool with_special_;
  std::string pending_;
};

}  // namespace thresher::model
