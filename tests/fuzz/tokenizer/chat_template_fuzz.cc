// libFuzzer target over chat templates. The input is taken as a Jinja template (its form must not
// depend on line ends; what is recognised must render) and as a conversation, whose messages
// are its pieces between zero bytes, rendered by every known template: nothing that a user wrote
// may be lost.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/check.h"
#include "common/model/tokenizer/chat_template.h"
#include "common/model/tokenizer/template_form.h"

namespace {

using namespace thresher::model;  // NOLINT: one file, one purpose

void CheckTemplate(const std::string& input) {
  const TemplateForm form = FormOfTemplate(input);
  if (input.find('\r') == std::string::npos) {
    std::string other;
    for (const char c : input) other += c == '\n' ? std::string("\r\n") : std::string(1, c);
    THRESHER_CHECK(FormOfTemplate(other).text == form.text, "line ends change the form");
  }
  const auto chat = ChatTemplate::Recognise(input, "fuzz");
  if (!chat.ok()) return;
  const std::vector<ChatMessage> messages = {{"user", "x"}};
  const auto text = chat->Render(messages, {.date = "26 Jul 2024"});
  THRESHER_CHECK(text.ok() && text->find("x") != std::string::npos, "a template loses text");
  THRESHER_CHECK(text->find(form.default_system) != std::string::npos, "the default is lost");
}

void CheckConversation(std::string_view input) {
  static constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool", "robot"};
  std::vector<ChatMessage> messages;
  while (!input.empty() && messages.size() < 32) {
    const std::string_view piece = input.substr(0, input.find('\0'));
    input.remove_prefix(std::min(input.size(), piece.size() + 1));
    const std::size_t role = piece.empty() ? 1 : static_cast<unsigned char>(piece[0]) % 5;
    messages.push_back({std::string(kRoles[role]), "x" + std::string(piece) + "x"});
  }
  for (const char* name : {"chatml", "qwen2", "qwen2.5", "qwen3", "qwen3-instruct",
                           "qwen3-thinking", "llama3", "llama3.1", "llama3.2"}) {
    for (const bool thinking : {false, true}) {
      const auto text = ChatTemplate::ByName(name)->Render(
          messages, {.add_generation_prompt = false, .thinking = thinking, .date = "1 Jan 2025"});
      if (!text.ok()) continue;
      for (const ChatMessage& message : messages) {
        THRESHER_CHECK(message.role != "user" || text->find(message.content) != std::string::npos,
                       "a message is lost");
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  CheckTemplate(input);
  CheckConversation(input);
  return 0;
}
