#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace thresher::examples {

struct Turn {
  std::string role;  // system, user, assistant, tool
  std::string content;
  bool learned = true;  // as far as the line says; the role has to be learned, too
};

// One line of a JSONL file, in one of these forms, told by its keys:
//   {"messages": [{"role", "content", "weight": 0 or 1}, ...]}   a conversation; weight as in
//       OpenAI's fine-tuning format, 1 where it is left out
//   {"prompt": "...", "completion": "..."}                       two texts, the second learned
//   {"prompt": [messages], "completion": [messages]}             a conversation, of which only the
//       completion is learned (TRL)
//   {"text": "..."}                                              all of it learned
// Other keys are for their owner (an id, a source) and ignored, but for those that would change
// what is learned and are not built: tools, functions.
struct ChatLine {
  enum class Form { kChat, kCompletion, kText };
  Form form = Form::kText;
  std::vector<Turn> turns;  // kCompletion: a user's and an assistant's; kText: an assistant's
};

// Error: kInvalidArgument: not UTF-8 (with the byte), not JSON, a key twice; else the field, what
// was found and what is allowed.
Result<ChatLine> ParseChatLine(std::string_view line);

}  // namespace thresher::examples
