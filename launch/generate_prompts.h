#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "launch/commands.h"
#include "launch/policy.h"

namespace thresher::launch {

// One prompt of `thresher generate`, or why it is none.
struct Prompt {
  std::string id;  // JSON of the line's "id"; empty: none
  std::vector<std::int32_t> tokens;
  Status status = Status::Ok();
};

// The prompts that the options name, in order: --prompt texts, then the lines of --prompts, each a
// JSON object with one of "tokens", "prompt" (text) and "messages" ([{"role", "content"}], rendered
// with the model's chat template). With --chat a text is a user's message, after --system. A line
// that is no prompt has a status. Errors: kInvalidArgument (options that do not go together),
// kNotFound (a file), those of the chat template.
Result<std::vector<Prompt>> ReadPrompts(const GenerateOptions& options, const LoadedPolicy& policy);

}  // namespace thresher::launch
