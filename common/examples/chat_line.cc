#include "common/examples/chat_line.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "common/config/data_files.h"
#include "common/data/json.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::examples {
namespace {

using nlohmann::json;

constexpr char kForms[] =
    "\"messages\"; or \"prompt\" and \"completion\"; or \"text\" in a line of its own form";
constexpr std::size_t kMostShown = 60;

// What stands there, short enough for a message.
std::string Found(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMostShown) text = text.substr(0, kMostShown) + "...";
  return std::string(value.type_name()) + " " + text;
}

Status Wrong(const std::string& field, const std::string& found, const std::string& allowed) {
  return InvalidArgument(field + ": " + found + "; allowed: " + allowed);
}

Result<std::string> TextOf(const json& value, const std::string& field) {
  if (!value.is_string()) return Wrong(field, "found " + Found(value), "text");
  return value.get<std::string>();
}

Result<bool> WeightOf(const json& message, const std::string& field) {
  const auto weight = message.find("weight");
  if (weight == message.end()) return true;
  const bool whole = weight->is_number_integer() || weight->is_number_unsigned();
  if (!whole || (*weight != 0 && *weight != 1)) {
    return Wrong(field + ".weight", "found " + Found(*weight), "0 or 1");
  }
  return *weight == 1;
}

Result<Turn> MessageOf(const json& message, const std::string& field) {
  if (!message.is_object()) {
    return Wrong(field, "found " + Found(message), "an object with role and content");
  }
  for (const auto& [key, value] : message.items()) {
    if (key != "role" && key != "content" && key != "weight") {
      return Wrong(field + "." + key, "found " + Found(value), "role, content, weight");
    }
  }
  for (const char* key : {"role", "content"}) {
    if (!message.contains(key)) return Wrong(field + "." + key, "missing", "text");
  }
  Turn turn;
  THRESHER_ASSIGN_OR_RETURN(turn.role, TextOf(message["role"], field + ".role"));
  THRESHER_ASSIGN_OR_RETURN(turn.content, TextOf(message["content"], field + ".content"));
  THRESHER_ASSIGN_OR_RETURN(turn.learned, WeightOf(message, field));
  if (!IsChatRole(turn.role)) {
    return Wrong(field + ".role", "found " + Found(message["role"]), kChatRolesText);
  }
  return turn;
}

Result<std::vector<Turn>> MessagesOf(const json& list, const std::string& field) {
  if (!list.is_array()) return Wrong(field, "found " + Found(list), "a list of messages");
  if (list.empty()) return Wrong(field, "empty", "at least one message");
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < list.size(); ++i) {
    THRESHER_ASSIGN_OR_RETURN(Turn turn, MessageOf(list[i], field + "[" + std::to_string(i) + "]"));
    turns.push_back(std::move(turn));
  }
  return turns;
}

Result<ChatLine> CompletionOf(const json& line) {
  const json &prompt = line["prompt"], &completion = line["completion"];
  if (prompt.is_array() != completion.is_array()) {
    return Wrong("completion", "found " + Found(completion),
                 prompt.is_array() ? "a list of messages, as the prompt is" : "text");
  }
  ChatLine out;
  if (!prompt.is_array()) {
    out.form = ChatLine::Form::kCompletion;
    out.turns = {{"user", "", false}, {"assistant", "", true}};
    THRESHER_ASSIGN_OR_RETURN(out.turns[0].content, TextOf(prompt, "prompt"));
    THRESHER_ASSIGN_OR_RETURN(out.turns[1].content, TextOf(completion, "completion"));
    if (out.turns[1].content.empty()) return Wrong("completion", "empty", "text to learn");
    return out;
  }
  out.form = ChatLine::Form::kChat;
  THRESHER_ASSIGN_OR_RETURN(out.turns, MessagesOf(prompt, "prompt"));
  for (Turn& turn : out.turns) turn.learned = false;
  THRESHER_ASSIGN_OR_RETURN(auto learned, MessagesOf(completion, "completion"));
  for (Turn& turn : learned) out.turns.push_back(std::move(turn));
  return out;
}

std::string KeysOf(const json& line) {
  std::string keys;
  for (const auto& [key, value] : line.items()) keys += (keys.empty() ? "" : ", ") + key;
  return keys.empty() ? "no keys" : "keys " + keys;
}

Result<ChatLine> FormOf(const json& line) {
  if (!line.is_object()) return Wrong("the line", "found " + Found(line), "an object");
  for (const char* key : {"tools", "functions"}) {
    if (line.contains(key)) return Wrong(key, "found " + Found(line[key]), "no such key");
  }
  const bool messages = line.contains("messages"), text = line.contains("text");
  const bool prompt = line.contains("prompt"), completion = line.contains("completion");
  if (int{messages} + int{text} + int{prompt || completion} != 1) {
    return Wrong("the line", "found " + KeysOf(line), kForms);
  }
  if (prompt != completion) return Wrong(prompt ? "completion" : "prompt", "missing", kForms);
  if (prompt) return CompletionOf(line);
  ChatLine out;
  if (messages) {
    out.form = ChatLine::Form::kChat;
    THRESHER_ASSIGN_OR_RETURN(out.turns, MessagesOf(line["messages"], "messages"));
    return out;
  }
  out.turns = {{"assistant", "", true}};
  THRESHER_ASSIGN_OR_RETURN(out.turns[0].content, TextOf(line["text"], "text"));
  if (out.turns[0].content.empty()) return Wrong("text", "empty", "text to learn");
  return out;
}

}  // namespace

Result<ChatLine> ParseChatLine(std::string_view line) {
  const std::size_t valid = model::ValidPrefix(line);
  if (valid < line.size()) {
    return Wrong("the line", "byte " + std::to_string(valid + 1) + " is not UTF-8", "UTF-8");
  }
  const auto parsed = ParseJson(line);
  if (!parsed.ok()) return Wrong("the line", parsed.status().message(), "one JSON object");
  return FormOf(*parsed);
}

}  // namespace thresher::examples
