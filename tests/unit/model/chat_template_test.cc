#include "common/model/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/model/tokenizer/template_form.h"

namespace thresher::model {
namespace {

using ::testing::HasSubstr;

const std::vector<ChatMessage> kShort = {{"user", "Hi "}};
const std::vector<ChatMessage> kLong = {
    {"system", "S"}, {"user", "q"}, {"assistant", "<think>\nt\n</think>\n\na"}, {"user", "r"}};

std::string Rendered(const std::string& name, const std::vector<ChatMessage>& messages,
                     const ChatOptions& options = {}) {
  const auto chat = ChatTemplate::ByName(name);
  EXPECT_TRUE(chat.ok()) << chat.status().ToString();
  EXPECT_EQ(chat->name(), name);
  const auto text = chat->Render(messages, options);
  EXPECT_TRUE(text.ok()) << text.status().ToString();
  return text.ok() ? *text : "";
}

TEST(ChatTemplate, ChatMlWritesEveryMessage) {
  EXPECT_EQ(Rendered("chatml", kShort), "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered("chatml", kShort, {.add_generation_prompt = false}),
            "<|im_start|>user\nHi <|im_end|>\n");
}

TEST(ChatTemplate, Qwen2HasASystemMessageOfItsOwn) {
  EXPECT_EQ(Rendered("qwen2", kShort),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi "
            "<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THAT(Rendered("qwen2.5", kShort),
              HasSubstr("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
                        "helpful assistant.<|im_end|>\n"));
  EXPECT_EQ(Rendered("qwen2.5", kLong).find("Qwen"), std::string::npos);
}

TEST(ChatTemplate, NeighbouringToolResultsShareAUserTurn) {
  const std::vector<ChatMessage> messages = {{"tool", "1"}, {"tool", "2"}, {"user", "q"}};
  EXPECT_EQ(Rendered("qwen3-instruct", messages, {.add_generation_prompt = false}),
            "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</"
            "tool_response><|im_end|>\n<|im_start|>user\nq<|im_end|>\n");
}

TEST(ChatTemplate, Qwen3ForgetsThoughtsBeforeTheLastQuery) {
  EXPECT_EQ(Rendered("qwen3", kLong),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>"
            "assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered("qwen3", {{"user", "q"}, {"assistant", "<think>\nt\n</think>\n\na"}},
                     {.add_generation_prompt = false}),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</"
            "think>\n\na<|im_end|>\n");
  EXPECT_THAT(Rendered("qwen3", kShort, {.thinking = false}),
              HasSubstr("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_THAT(Rendered("qwen3-thinking", kShort), HasSubstr("<|im_start|>assistant\n<think>\n"));
}

TEST(ChatTemplate, Llama3StripsContents) {
  EXPECT_EQ(Rendered("llama3", kShort),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_"
            "header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(Rendered("llama3", {{"user", "\u3000\x1f a\u00a0b \n\u2029"}},
                     {.add_generation_prompt = false}),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na\u00a0b<|eot_id|>");
}

TEST(ChatTemplate, Llama31BeginsWithDates) {
  const std::string head =
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: "
      "December 2023\nToday Date: ";
  EXPECT_THAT(Rendered("llama3.1", kShort), HasSubstr(head + "26 Jul 2024\n\n<|eot_id|>"));
  EXPECT_THAT(Rendered("llama3.2", kLong, {.date = "01 Feb 2025"}),
              HasSubstr(head + "01 Feb 2025\n\nS<|eot_id|><|start_header_id|>user"));
}

TEST(ChatTemplate, RefusesWhatATemplateCannotRender) {
  const auto message = [](const std::string& name, const std::vector<ChatMessage>& messages) {
    const auto text = ChatTemplate::ByName(name)->Render(messages);
    EXPECT_EQ(text.status().code(), StatusCode::kInvalidArgument);
    return text.status().message();
  };
  EXPECT_THAT(message("qwen3", {}), HasSubstr("without messages"));
  EXPECT_THAT(message("qwen3", {{"user", "a"}, {"robot", "b"}}),
              HasSubstr("message 1: role 'robot'"));
  EXPECT_THAT(message("llama3.1", {{"tool", "a"}}), HasSubstr("role 'tool'"));
  EXPECT_THAT(message("llama3.2", kShort), HasSubstr("date"));
  EXPECT_THAT(ChatTemplate::ByName("vicuna").status().message(),
              HasSubstr("allowed: chatml, qwen2, qwen2.5, qwen3, "));
}

constexpr char kChatMl[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

TEST(TemplateForm, SpellingDoesNotMatter) {
  const std::string other =
      "{#- a comment -#}\n{%- for message in messages -%}\n  {{- \"<|im_start|>\"+message.role + "
      "'\n'\n+message.content+'<|im_end|>' + '\\n' -}}\n{%- endfor %}\n{% if add_generation_prompt "
      "%}\n   {{-'<|im_start|>assistant\\n'-}}\n   {% endif %}\n";
  EXPECT_EQ(FormOfTemplate(kChatMl).text, FormOfTemplate(other).text);
}

TEST(TemplateForm, AnyOtherDifferenceDoes) {
  const std::string text = kChatMl;
  const std::string form = FormOfTemplate(text).text;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = changed[i] == 'x' ? 'y' : 'x';
    EXPECT_NE(FormOfTemplate(changed).text, form) << changed;
  }
  EXPECT_NE(FormOfTemplate(text + " ").text, form);
  EXPECT_NE(FormOfTemplate("{% for m in n %}\n{{ m }}{% endfor %}").text,
            FormOfTemplate("{% for m in n %}\n\n{{ m }}{% endfor %}").text);
  EXPECT_NE(FormOfTemplate("{{ a b }}").text, FormOfTemplate("{{ ab }}").text);
  EXPECT_NE(FormOfTemplate("{{ '\\x41' }}").text, FormOfTemplate("{{ '\\\\x41' }}").text);
  EXPECT_NE(FormOfTemplate("{{ 'a' }}").text, FormOfTemplate("{{ a }}").text);
  EXPECT_NE(FormOfTemplate("{{ a }}").text, FormOfTemplate("{% a %}").text);
}

TEST(TemplateForm, TheDefaultSystemMessageIsAHole) {
  const auto with = [](const std::string& system) {
    return FormOfTemplate("{{ '" + system + "' }}{{ '<|im_start|>system\\n" + system +
                          "<|im_end|>\\n' }}");
  };
  EXPECT_EQ(with("You are A.").text, with("Be B.").text);
  EXPECT_EQ(with("Be B.").default_system, "Be B.");
  EXPECT_NE(with("Be B.").text,
            FormOfTemplate("{{ 'C' }}{{ '<|im_start|>system\\nBe B.<|im_end|>\\n' }}").text);
}

TEST(ChatTemplate, IsRecognisedByItsForm) {
  const auto chat = ChatTemplate::Recognise(kChatMl, "t");
  ASSERT_TRUE(chat.ok()) << chat.status().ToString();
  EXPECT_EQ(chat->name(), "chatml");
  const auto unknown = ChatTemplate::Recognise("{{ messages }}", "m/chat_template.jinja");
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.status().message(),
              HasSubstr("m/chat_template.jinja: an unknown chat template"));
}

class ChatTemplateFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }
  std::string Name() {
    const auto chat = ChatTemplate::FromFolder(folder_);
    return chat.ok() ? chat->name() : chat.status().ToString();
  }
  std::filesystem::path folder_;
};

TEST_F(ChatTemplateFolder, TakesTheFileBeforeTheConfiguration) {
  EXPECT_THAT(Name(), HasSubstr("NOT_FOUND"));
  Write("tokenizer_config.json", nlohmann::json{{"chat_template", "{{ x }}"}}.dump());
  EXPECT_THAT(Name(), HasSubstr("tokenizer_config.json: key 'chat_template': an unknown"));
  Write("tokenizer_config.json", nlohmann::json{{"chat_template", kChatMl}}.dump());
  EXPECT_EQ(Name(), "chatml");
  Write("chat_template.jinja", "{{ x }}");
  EXPECT_THAT(Name(), HasSubstr("chat_template.jinja: an unknown"));
  Write("chat_template.jinja", kChatMl);
  EXPECT_EQ(Name(), "chatml");
}

TEST_F(ChatTemplateFolder, TakesTheDefaultOfAList) {
  const auto list = [](const nlohmann::json& entries) {
    return nlohmann::json{{"chat_template", entries}}.dump();
  };
  Write("tokenizer_config.json",
        list({{{"name", "rag"}, {"template", "x"}}, {{"name", "default"}, {"template", kChatMl}}}));
  EXPECT_EQ(Name(), "chatml");
  Write("tokenizer_config.json", list({{{"name", "rag"}, {"template", "x"}}}));
  EXPECT_THAT(Name(), HasSubstr("has no default"));
  Write("tokenizer_config.json", list({3}));
  EXPECT_THAT(Name(), HasSubstr("'chat_template'"));
  Write("tokenizer_config.json", list(3));
  EXPECT_THAT(Name(), HasSubstr("'chat_template' is 3"));
  Write("tokenizer_config.json", "{");
  EXPECT_THAT(Name(), HasSubstr("DATA_LOSS"));
}

}  // namespace
}  // namespace thresher::model
