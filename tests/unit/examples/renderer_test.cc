#include "common/examples/renderer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/examples/support.h"

namespace thresher::examples {
namespace {

using ::testing::HasSubstr;

ChatLine Line(const std::string& json) {
  auto line = ParseChatLine(json);
  EXPECT_TRUE(line.ok()) << line.status().ToString();
  return *std::move(line);
}

ChatLine Chat(const std::vector<Turn>& turns) { return {ChatLine::Form::kChat, turns}; }

class RendererTest : public ::testing::Test {
 protected:
  // "prompt[learned]prompt..." of the tokens; <bos> is ^, <eos> is $.
  std::string Shown(const Example& example) const {
    std::string out;
    for (const Segment& segment : example.segments) {
      if (segment.in_loss) out += "[";
      for (std::uint32_t i = segment.begin; i < segment.end; ++i) {
        const std::int32_t id = example.tokens[i];
        out += id == 1 ? "^" : id == 2 ? "$" : tokenizer_->Decode({&id, 1}, true);
      }
      if (segment.in_loss) out += "]";
    }
    return out;
  }
  std::string Shown(const RenderOptions& options, const ChatLine& line) const {
    const auto rendered = Renderer(options).Render(line);
    if (!rendered.ok()) return rendered.status().message();
    CheckSegments(rendered->example);
    return Shown(rendered->example);
  }
  static void CheckSegments(const Example& example) {
    const Trajectory record = example.Record({Stream::kSupervised, 0, 3, 0}, "t");
    EXPECT_TRUE(record.Validate().ok()) << record.Validate().ToString();
    ASSERT_FALSE(example.segments.empty());
    EXPECT_FALSE(example.segments.front().in_loss);
  }
  RenderOptions Options() const { return OptionsFor(*tokenizer_); }
  RenderOptions Templated(const char* name) const {
    RenderOptions options = Options();
    options.chat_template = model::ChatTemplate::ByName(name).value();
    return options;
  }

  std::unique_ptr<model::Tokenizer> tokenizer_ = Letters();
};

TEST_F(RendererTest, LearnsTheCompletionAndItsEnd) {
  EXPECT_EQ(Shown(Options(), Line(R"({"prompt": "1+1=", "completion": "2"})")), "^1+1=[2$]");
  EXPECT_EQ(Shown(Options(), Line(R"({"prompt": "", "completion": "2"})")), "^[2$]");
}

TEST_F(RendererTest, LearnsAllOfATextButItsFirstToken) {
  EXPECT_EQ(Shown(Options(), Line(R"({"text": "abc"})")), "^[abc$]");
  RenderOptions bare = Options();
  bare.bos = bare.eos = -1;
  EXPECT_EQ(Shown(bare, Line(R"({"text": "abc"})")), "a[bc]");
}

TEST_F(RendererTest, LearnsTheRolesAskedFor) {
  const ChatLine chat = Chat({{"system", "s."},
                              {"user", "q?"},
                              {"assistant", "a."},
                              {"tool", "t"},
                              {"user", "r?"},
                              {"assistant", "b."}});
  EXPECT_EQ(Shown(Options(), chat), "^s.q?[a.$]tr?[b.$]");
  RenderOptions options = Options();
  options.loss_roles = {"user", "tool"};
  EXPECT_EQ(Shown(options, chat), "^s.[q?]a.$[t][r?]b.$");
}

TEST_F(RendererTest, TellsWhoWroteWhat) {
  const auto rendered = Renderer(Options()).Render(Chat({{"system", "s"},
                                                         {"user", "q"},
                                                         {"assistant", "a"},
                                                         {"tool", "t"},
                                                         {"user", "r"},
                                                         {"assistant", "b"}}));
  ASSERT_TRUE(rendered.ok());
  std::vector<Role> roles;
  for (const Segment& s : rendered->example.segments) roles.push_back(s.role);
  EXPECT_EQ(roles, (std::vector{Role::kPrompt, Role::kPolicy, Role::kTool, Role::kEnvironment,
                                Role::kPolicy}));
}

TEST_F(RendererTest, WeightZeroIsNotLearned) {
  EXPECT_EQ(
      Shown(Options(),
            Chat({{"user", "q"}, {"assistant", "a", false}, {"user", "r"}, {"assistant", "b"}})),
      "^qa$r[b$]");
}

TEST_F(RendererTest, RefusesWhatTeachesNothing) {
  EXPECT_THAT(Shown(Options(), Chat({{"user", "q"}})),
              HasSubstr("nothing is learned of them; allowed: at least one of a role in "
                        "supervised.loss_roles (assistant)"));
  EXPECT_THAT(Shown(Options(), Chat({{"user", "q"}, {"assistant", ""}})),
              HasSubstr("messages[1].content: empty"));
  RenderOptions bare = Options();
  bare.bos = bare.eos = -1;
  EXPECT_THAT(Shown(bare, Line(R"({"text": "a"})")), HasSubstr("one token"));
}

TEST_F(RendererTest, NamesACharacterThatTheTokenizerLacks) {
  EXPECT_THAT(Shown(Options(), Line(R"({"text": "caf\u00e9"})")), HasSubstr("character 'é'"));
}

TEST_F(RendererTest, RefusesCutsOrDropsWhatIsTooLong) {
  RenderOptions options = Options();
  options.context = 6;
  const ChatLine fits = Line(R"({"prompt": "ab", "completion": "cd"})");
  const ChatLine longer = Line(R"({"prompt": "ab", "completion": "cde"})");
  const ChatLine prompt_alone = Line(R"({"prompt": "abcdef", "completion": "g"})");
  EXPECT_EQ(Shown(options, fits), "^ab[cd$]");
  EXPECT_THAT(Shown(options, longer), HasSubstr("7 tokens; allowed: at most model.context (6)"));
  using Fit = Renderer::Rendered::Fit;
  options.over_long = OverLong::kTruncate;
  EXPECT_EQ(Shown(options, longer), "^ab[cde]");
  EXPECT_EQ(Renderer(options).Render(longer)->fit, Fit::kTruncated);
  EXPECT_EQ(Renderer(options).Render(fits)->fit, Fit::kWhole);
  EXPECT_EQ(Renderer(options).Render(prompt_alone)->fit, Fit::kDropped);
  options.over_long = OverLong::kDrop;
  EXPECT_EQ(Renderer(options).Render(longer)->fit, Fit::kDropped);
  EXPECT_EQ(Shown(options, fits), "^ab[cd$]");
}

TEST_F(RendererTest, WritesConversationsWithTheModelsTemplate) {
  const ChatLine chat =
      Chat({{"system", "s"}, {"user", "q"}, {"assistant", "a"}, {"user", "r"}, {"assistant", "b"}});
  const std::string nl = "\n";
  EXPECT_EQ(Shown(Templated("chatml"), chat),
            "<|im_start|>system" + nl + "s<|im_end|>" + nl + "<|im_start|>user" + nl +
                "q<|im_end|>" + nl + "<|im_start|>assistant" + nl + "[a<|im_end|>]" + nl +
                "<|im_start|>user" + nl + "r<|im_end|>" + nl + "<|im_start|>assistant" + nl +
                "[b<|im_end|>]" + nl);
  // Texts without messages are not conversations.
  EXPECT_EQ(Shown(Templated("chatml"), Line(R"({"prompt": "q", "completion": "a"})")), "^q[a$]");
}

// Whatever is learned: the tokens are those of the whole text that the template writes.
TEST_F(RendererTest, ATemplatesTextIsTheSameWhateverIsLearned) {
  const ChatLine chat =
      Chat({{"user", "q"}, {"assistant", "a"}, {"user", "r"}, {"assistant", "b"}});
  for (const char* name : {"chatml", "qwen2", "qwen2.5", "llama3", "qwen3-instruct"}) {
    RenderOptions options = Templated(name);
    std::vector<model::ChatMessage> messages;
    for (const Turn& turn : chat.turns) messages.push_back({turn.role, turn.content});
    model::ChatOptions whole;
    whole.add_generation_prompt = false;
    const auto text = options.chat_template->Render(messages, whole).value();
    for (const auto& roles :
         std::vector<std::set<std::string>>{{"assistant"}, {"user"}, {"user", "assistant"}}) {
      options.loss_roles = roles;
      const auto rendered = Renderer(options).Render(chat);
      ASSERT_TRUE(rendered.ok()) << name << ": " << rendered.status().ToString();
      EXPECT_EQ(rendered->example.tokens, tokenizer_->Encode(text)) << name;
      EXPECT_GT(rendered->example.LossTokens(), 0u);
      CheckSegments(rendered->example);
    }
  }
}

TEST_F(RendererTest, RefusesATemplateThatWritesAnAnswerOtherwiseLater) {
  const RenderOptions options = Templated("qwen3");
  const std::string thought = "<think>\nt\n</think>\n\na";
  EXPECT_THAT(
      Shown(options,
            Chat({{"user", "q"}, {"assistant", thought}, {"user", "r"}, {"assistant", "b"}})),
      HasSubstr("messages[1]: the chat template (qwen3) writes it otherwise"));
  EXPECT_THAT(Shown(options, Chat({{"user", "q"}, {"assistant", thought}})), HasSubstr("[<think>"));
  EXPECT_THAT(Shown(options, Chat({{"assistant", "a"}, {"user", "q"}})),
              HasSubstr("messages[0].role: assistant"));
}

}  // namespace
}  // namespace thresher::examples
