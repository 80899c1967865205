#include "launch/generate_prompts.h"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/data/json.h"
#include "common/model/tokenizer/chat_template.h"
#include "launch/json_tokens.h"

namespace thresher::launch {
namespace {

using nlohmann::json;
using Messages = std::vector<model::ChatMessage>;

class PromptReader {
 public:
  PromptReader(const GenerateOptions& options, const LoadedPolicy& policy)
      : options_(options), policy_(policy) {}

  Result<std::vector<Prompt>> Read() {
    if (options_.chat) THRESHER_RETURN_IF_ERROR(FindTemplate());
    for (const std::string& text : options_.prompts) Add("", FromText(text));
    if (!options_.prompt_file.empty()) THRESHER_RETURN_IF_ERROR(ReadFile());
    if (prompts_.empty())
      return InvalidArgument("no prompt; allowed: --prompt TEXT, --prompts FILE");
    return std::move(prompts_);
  }

 private:
  void Add(std::string id, Result<std::vector<std::int32_t>> tokens) {
    Prompt prompt{std::move(id), {}, tokens.status()};
    if (tokens.ok()) prompt.tokens = std::move(tokens).value();
    prompts_.push_back(std::move(prompt));
  }

  Status ReadFile() {
    std::ifstream file;
    const bool standard_input = options_.prompt_file == "-";
    if (!standard_input) file.open(options_.prompt_file);
    std::istream& in = standard_input ? std::cin : file;
    if (!in) return NotFound("--prompts " + options_.prompt_file + ": cannot be opened");
    for (std::string line; std::getline(in, line);) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      AddLine(line);
    }
    if (in.bad()) return Unavailable("--prompts " + options_.prompt_file + ": cannot be read");
    return Status::Ok();
  }

  void AddLine(const std::string& line) {
    const auto parsed = ParseJson(line);
    if (!parsed.ok()) return Add("", parsed.status());
    const json& request = *parsed;
    if (!request.is_object()) return Add("", InvalidArgument("not a JSON object"));
    const std::string id = request.contains("id") ? request["id"].dump() : "";
    const bool tokens = request.contains("tokens"), text = request.contains("prompt"),
               messages = request.contains("messages");
    if (tokens + text + messages != 1) {
      return Add(
          id, InvalidArgument("allowed: one of the keys \"tokens\", \"prompt\" and \"messages\""));
    }
    if (tokens) return Add(id, TokensFromJson(request["tokens"], "tokens"));
    if (messages) return Add(id, FromMessages(request["messages"]));
    if (!request["prompt"].is_string()) {
      return Add(id,
                 InvalidArgument("prompt is " + request["prompt"].dump() + "; allowed: a string"));
    }
    Add(id, FromText(request["prompt"].get<std::string>()));
  }

  Result<std::vector<std::int32_t>> FromText(const std::string& text) {
    if (!options_.chat) return EncodePrompt(policy_, text);
    Messages messages;
    if (!options_.system.empty()) messages.push_back({"system", options_.system});
    messages.push_back({"user", text});
    return Render(messages);
  }

  Result<std::vector<std::int32_t>> FromMessages(const json& list) {
    const std::string allowed =
        "; allowed: a list of objects with the texts \"role\" and \"content\"";
    if (!list.is_array()) return InvalidArgument("messages is " + list.dump() + allowed);
    Messages messages;
    for (const json& message : list) {
      const auto text = [&](const char* key) {
        return message.is_object() && message.contains(key) && message[key].is_string();
      };
      if (!text("role") || !text("content")) {
        return InvalidArgument("messages has " + message.dump() + allowed);
      }
      messages.push_back(
          {message["role"].get<std::string>(), message["content"].get<std::string>()});
    }
    return Render(messages);
  }

  Status FindTemplate() {
    if (template_) return Status::Ok();
    if (policy_.tokenizer == nullptr) return policy_.without_tokenizer;
    auto found = options_.chat_template.empty()
                     ? model::ChatTemplate::FromFolder(policy_.folder)
                     : model::ChatTemplate::ByName(options_.chat_template);
    if (!found.ok()) return found.status();
    template_ = std::move(found).value();
    return Status::Ok();
  }

  // A rendered template has its special tokens written out.
  Result<std::vector<std::int32_t>> Render(const Messages& messages) {
    THRESHER_RETURN_IF_ERROR(FindTemplate());
    model::ChatOptions chat;
    chat.thinking = !options_.no_thinking;
    chat.date = options_.date;
    THRESHER_ASSIGN_OR_RETURN(std::string text, template_->Render(messages, chat));
    return policy_.tokenizer->Encode(text);
  }

  const GenerateOptions& options_;
  const LoadedPolicy& policy_;
  std::optional<model::ChatTemplate> template_;
  std::vector<Prompt> prompts_;
};

}  // namespace

Result<std::vector<Prompt>> ReadPrompts(const GenerateOptions& options,
                                        const LoadedPolicy& policy) {
  return PromptReader(options, policy).Read();
}

}  // namespace thresher::launch
