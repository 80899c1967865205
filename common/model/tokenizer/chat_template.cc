#include "common/model/tokenizer/chat_template.h"

#include <algorithm>

namespace thresher::model {
namespace {

constexpr std::string_view kUserTurn = "user";
constexpr char kLlama31Date[] = "26 Jul 2024";

bool HasRole(const ChatMessage& message, std::string_view role) { return message.role == role; }

std::string_view LeftStripLines(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  return text;
}

std::string_view RightStripLines(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// Python's str.strip(): the characters whose str.isspace() holds, in UTF-8.
std::string_view Strip(std::string_view text) {
  static constexpr std::string_view kSpaces[] = {
      "\t",           "\n",           "\v",           "\f",           "\r",
      "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
      "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
      "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
      "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
      "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
  const auto strip = [&](bool front) {
    for (std::string_view space : kSpaces) {
      if (front ? !text.starts_with(space) : !text.ends_with(space)) continue;
      front ? text.remove_prefix(space.size()) : text.remove_suffix(space.size());
      return true;
    }
    return false;
  };
  while (strip(true)) {
  }
  while (strip(false)) {
  }
  return text;
}

std::string Turn(std::string_view role, std::string_view content) {
  return "<|im_start|>" + std::string(role) + "\n" + std::string(content) + "<|im_end|>\n";
}

std::string LlamaTurn(std::string_view role, std::string_view content) {
  return "<|start_header_id|>" + std::string(role) + "<|end_header_id|>\n\n" +
         std::string(content) + "<|eot_id|>";
}

// A tool's result as Qwen2.5 and later write it: neighbours share one user turn.
std::string ToolResult(std::span<const ChatMessage> messages, std::size_t at) {
  std::string text;
  if (at == 0 || !HasRole(messages[at - 1], "tool")) text += "<|im_start|>user";
  text += "\n<tool_response>\n" + messages[at].content + "\n</tool_response>";
  const bool last = at + 1 == messages.size() || !HasRole(messages[at + 1], "tool");
  return last ? text + "<|im_end|>\n" : text;
}

// The index of the last message in which a user asks; messages.size() - 1 if there is none.
std::size_t LastQuery(std::span<const ChatMessage> messages) {
  for (std::size_t at = messages.size(); at-- > 0;) {
    const std::string& content = messages[at].content;
    if (HasRole(messages[at], kUserTurn) &&
        !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>"))) {
      return at;
    }
  }
  return messages.size() - 1;
}

}  // namespace

// An assistant's message in qwen3 and qwen3-thinking: thoughts are shown after the last query only,
// there always in the last message.
std::string ChatTemplate::Answer(std::span<const ChatMessage> messages, std::size_t at,
                                 std::size_t last_query) const {
  constexpr std::string_view kBegin = "<think>", kEnd = "</think>";
  std::string_view content = messages[at].content, thought;
  if (const std::size_t first = content.find(kEnd); first != content.npos) {
    thought = RightStripLines(content.substr(0, first));
    if (const std::size_t begin = thought.rfind(kBegin); begin != thought.npos) {
      thought.remove_prefix(begin + kBegin.size());
    }
    thought = LeftStripLines(thought);
    content = LeftStripLines(content.substr(content.rfind(kEnd) + kEnd.size()));
  }
  const bool last = at + 1 == messages.size();
  if (at <= last_query || (!last && thought.empty())) return Turn("assistant", content);
  return Turn("assistant", "<think>\n" + std::string(RightStripLines(LeftStripLines(thought))) +
                               "\n</think>\n\n" + std::string(LeftStripLines(content)));
}

std::string ChatTemplate::RenderChatMl(std::span<const ChatMessage> messages) const {
  std::string text;
  if (!default_system_.empty() && !HasRole(messages[0], "system")) {
    text += Turn("system", default_system_);
  }
  for (const ChatMessage& message : messages) text += Turn(message.role, message.content);
  return text;
}

std::string ChatTemplate::RenderQwen(std::span<const ChatMessage> messages) const {
  const bool thoughts = kind_ == Kind::kQwen3 || kind_ == Kind::kQwen3Thinking;
  const std::size_t last_query = LastQuery(messages);
  std::string text;
  if (!default_system_.empty() && !HasRole(messages[0], "system")) {
    text += Turn("system", default_system_);
  }
  for (std::size_t at = 0; at < messages.size(); ++at) {
    if (HasRole(messages[at], "tool")) {
      text += ToolResult(messages, at);
    } else if (thoughts && HasRole(messages[at], "assistant")) {
      text += Answer(messages, at, last_query);
    } else {
      text += Turn(messages[at].role, messages[at].content);
    }
  }
  return text;
}

std::string ChatTemplate::RenderLlama(std::span<const ChatMessage> messages,
                                      const ChatOptions& options) const {
  std::string text = bos_token_;
  if (kind_ != Kind::kLlama3) {
    std::string_view system;
    if (HasRole(messages[0], "system")) {
      system = Strip(messages[0].content);
      messages = messages.subspan(1);
    }
    text += LlamaTurn("system", "Cutting Knowledge Date: December 2023\nToday Date: " +
                                    (options.date.empty() ? kLlama31Date : options.date) + "\n\n" +
                                    std::string(system));
  }
  for (const ChatMessage& message : messages) {
    text += LlamaTurn(message.role, Strip(message.content));
  }
  return text;
}

Status ChatTemplate::Check(std::span<const ChatMessage> messages,
                           const ChatOptions& options) const {
  if (messages.empty()) return InvalidArgument("a conversation without messages; allowed: one");
  const bool dated = kind_ == Kind::kLlama31 || kind_ == Kind::kLlama32;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system" || role == "user" || role == "assistant") continue;
    if (role == "tool" && !dated) continue;
    return InvalidArgument("message " + std::to_string(i) + ": role '" + role +
                           "'; allowed: system, user, assistant" + (dated ? "" : ", tool"));
  }
  if (kind_ == Kind::kLlama32 && options.date.empty()) {
    return InvalidArgument("chat template llama3.2: no date; allowed: a date as in '26 Jul 2024'");
  }
  return Status::Ok();
}

Result<std::string> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                         const ChatOptions& options) const {
  THRESHER_RETURN_IF_ERROR(Check(messages, options));
  const bool prompt = options.add_generation_prompt;
  switch (kind_) {
    case Kind::kLlama3:
    case Kind::kLlama31:
    case Kind::kLlama32:
      return RenderLlama(messages, options) +
             (prompt ? "<|start_header_id|>assistant<|end_header_id|>\n\n" : "");
    case Kind::kChatMl:
    case Kind::kQwen2:
      return RenderChatMl(messages) + (prompt ? "<|im_start|>assistant\n" : "");
    case Kind::kQwen25:
    case Kind::kQwen3Instruct:
      return RenderQwen(messages) + (prompt ? "<|im_start|>assistant\n" : "");
    case Kind::kQwen3:
      return RenderQwen(messages) + (prompt ? "<|im_start|>assistant\n" : "") +
             (prompt && !options.thinking ? "<think>\n\n</think>\n\n" : "");
    case Kind::kQwen3Thinking:
      return RenderQwen(messages) + (prompt ? "<|im_start|>assistant\n<think>\n" : "");
  }
  return InternalError("an unknown kind of chat template");
}

}  // namespace thresher::model
