#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher::model {

struct ChatMessage {
  std::string role;  // system, user, assistant or tool
  std::string content;
};

struct ChatOptions {
  bool add_generation_prompt = true;  // ends with the head of the assistant's answer
  bool thinking = true;               // qwen3: off puts an empty thought before the answer
  std::string date{};                 // llama3.1, llama3.2: "26 Jul 2024"
};

// How a conversation becomes the text that an instruction-tuned model was trained on; the same text
// as Transformers' apply_chat_template makes from the model's own Jinja template (without tools).
// These are known:
//   chatml            <|im_start|>role\ncontent<|im_end|>\n for every message
//   qwen2             chatml; "You are a helpful assistant." as system message where there is none
//   qwen2.5           likewise with its own words; tool results are user messages
//   qwen3             thoughts only in the last answer; `thinking`
//   qwen3-instruct    of July 2025: no thoughts
//   qwen3-thinking    of July 2025: every answer begins with a thought
//   llama3            headers and <|eot_id|>, contents stripped of white space
//   llama3.1          a system message with dates; 26 Jul 2024 unless `date` says otherwise
//   llama3.2          the same, and `date` must be given: the template would read a clock
class ChatTemplate {
 public:
  // Error: kInvalidArgument with the names above.
  static Result<ChatTemplate> ByName(std::string_view name);
  // Recognises a model's Jinja template by the hash of its form (template_form.h): spelling does
  // not matter, and the default system message of the Qwen2 and Qwen2.5 forms may be any text.
  // Error: kInvalidArgument naming `origin` for an unknown template.
  static Result<ChatTemplate> Recognise(std::string_view jinja, const std::string& origin);
  // The template of a folder: chat_template.jinja, or else "chat_template" of
  // tokenizer_config.json, a text or a list of {"name", "template"} of which "default" is taken;
  // with it `bos_token`, which the llama3 forms need. Errors: kNotFound (the folder has none),
  // kInvalidArgument (unknown, wrong type; names file and key), as ReadFile.
  static Result<ChatTemplate> FromFolder(const std::filesystem::path& folder);

  std::string name() const;
  // What the text begins with in the llama3 forms; <|begin_of_text|> unless set.
  void set_bos_token(std::string token) { bos_token_ = std::move(token); }

  // Errors: kInvalidArgument (no message; a role that the template does not know; no date).
  Result<std::string> Render(std::span<const ChatMessage> messages,
                             const ChatOptions& options = {}) const;

 private:
  enum class Kind {
    kChatMl,
    kQwen2,
    kQwen25,
    kQwen3,
    kQwen3Instruct,
    kQwen3Thinking,
    kLlama3,
    kLlama31,
    kLlama32
  };
  struct Known;
  static std::span<const Known> AllKnown();
  static std::string Names();
  ChatTemplate(Kind kind, std::string default_system)
      : kind_(kind), default_system_(std::move(default_system)) {}

  Status Check(std::span<const ChatMessage> messages, const ChatOptions& options) const;
  std::string RenderChatMl(std::span<const ChatMessage> messages) const;
  std::string RenderQwen(std::span<const ChatMessage> messages) const;
  std::string Answer(std::span<const ChatMessage> messages, std::size_t at,
                     std::size_t last_query) const;
  std::string RenderLlama(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  Kind kind_;
  std::string default_system_;
  std::string bos_token_ = "<|begin_of_text|>";
};

}  // namespace thresher::model
