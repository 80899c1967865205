#include "common/examples/chat_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/config/data_files.h"

namespace thresher::examples {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::string& line) {
  const auto parsed = ParseChatLine(line);
  if (!parsed.ok()) return parsed.status().message();
  ADD_FAILURE() << "accepted: " << line;
  return "";
}

TEST(ChatLineTest, ReadsAConversationWithItsWeights) {
  const auto line = ParseChatLine(
      R"({"id": 7, "messages": [{"role": "system", "content": "be brief"},
          {"role": "assistant", "content": "a", "weight": 0},
          {"role": "assistant", "content": "b", "weight": 1}]})");
  ASSERT_TRUE(line.ok()) << line.status().ToString();
  EXPECT_EQ(line->form, ChatLine::Form::kChat);
  ASSERT_EQ(line->turns.size(), 3u);
  EXPECT_EQ(line->turns[0].role, "system");
  EXPECT_EQ(line->turns[0].content, "be brief");
  EXPECT_TRUE(line->turns[0].learned);
  EXPECT_FALSE(line->turns[1].learned);
  EXPECT_TRUE(line->turns[2].learned);
}

TEST(ChatLineTest, ReadsPromptAndCompletionAsTexts) {
  const auto line = ParseChatLine(R"({"prompt": "1+1=", "completion": "2"})");
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->form, ChatLine::Form::kCompletion);
  ASSERT_EQ(line->turns.size(), 2u);
  EXPECT_FALSE(line->turns[0].learned);
  EXPECT_EQ(line->turns[1].content, "2");
}

TEST(ChatLineTest, LearnsOnlyTheCompletionOfAConversation) {
  const auto line = ParseChatLine(
      R"({"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
          "completion": [{"role": "assistant", "content": "s"}]})");
  ASSERT_TRUE(line.ok());
  ASSERT_EQ(line->turns.size(), 3u);
  EXPECT_FALSE(line->turns[1].learned);
  EXPECT_TRUE(line->turns[2].learned);
}

TEST(ChatLineTest, NamesFieldFindingAndWhatIsAllowed) {
  const std::vector<std::vector<std::string>> cases = {
      {"7", "the line", "number 7", "an object"},
      {"{}", "the line", "no keys", "\"messages\""},
      {R"({"text": "a", "messages": []})", "the line", "keys messages, text", "\"prompt\""},
      {R"({"prompt": "a"})", "completion", "missing"},
      {R"({"completion": "a"})", "prompt", "missing"},
      {R"({"prompt": "a", "completion": ""})", "completion", "empty", "text to learn"},
      {R"({"prompt": "a", "completion": 3})", "completion", "number 3", "text"},
      {R"({"prompt": "a", "completion": []})", "completion", "array", "text"},
      {R"({"prompt": null, "completion": "a"})", "prompt", "null", "text"},
      {R"({"text": ""})", "text", "empty"},
      {R"({"text": ["a"]})", "text", "array", "text"},
      {R"({"messages": {}})", "messages", "object", "a list of messages"},
      {R"({"messages": []})", "messages", "empty", "at least one"},
      {R"({"messages": ["a"]})", "messages[0]", "string", "role and content"},
      {R"({"messages": [{"role": "user"}]})", "messages[0].content", "missing"},
      {R"({"messages": [{"content": "a"}]})", "messages[0].role", "missing"},
      {R"({"messages": [{"role": "bot", "content": "a"}]})", "messages[0].role", "\"bot\"",
       "system, user, assistant, tool"},
      {R"({"messages": [{"role": 1, "content": "a"}]})", "messages[0].role", "number 1"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})", "messages[0].content",
       "array", "text"},
      {R"({"messages": [{"role": "user", "content": "a", "weight": 2}]})", "messages[0].weight",
       "number 2", "0 or 1"},
      {R"({"messages": [{"role": "user", "content": "a", "weight": true}]})", "messages[0].weight",
       "boolean", "0 or 1"},
      {R"({"messages": [{"role": "user", "content": "a", "tool_calls": []}]})",
       "messages[0].tool_calls", "role, content, weight"},
      {R"({"messages": [], "tools": []})", "tools", "no such key"},
      {R"({"text": "a", "text": "b"})", "key 'text' stands twice"},
      {R"({"text": "a")", "the line", "parse error"},
      {"{\"text\": \"a\xff\"}", "byte 12 is not UTF-8"},
  };
  for (const auto& expected : cases) {
    const std::string error = ErrorOf(expected[0]);
    for (std::size_t i = 1; i < expected.size(); ++i) {
      EXPECT_THAT(error, HasSubstr(expected[i])) << expected[0];
    }
  }
}

// Broken in every way that a byte can be: the parser answers with an error or a line that holds
// what it promises, and never fails otherwise.
TEST(ChatLineTest, SurvivesChangedBytes) {
  const std::vector<std::string> seeds = {
      R"({"messages":[{"role":"user","content":"a\u00e9b"},{"role":"assistant","content":"c","weight":1}]})",
      R"({"prompt":"a","completion":"b"})", R"({"text":"abc"})",
      R"({"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}]})"};
  std::uint64_t state = 7;
  const auto below = [&](std::size_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>((state >> 33) % bound);
  };
  int accepted = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string line = seeds[below(seeds.size())];
    for (std::size_t edits = 1 + below(3); edits > 0 && !line.empty(); --edits) {
      const std::size_t at = below(line.size());
      switch (below(4)) {
        case 0:
          line[at] = static_cast<char>(below(256));
          break;
        case 1:
          line.erase(at, 1 + below(4));
          break;
        case 2:
          line.insert(at, 1, "{}[]\",:0a\\"[below(10)]);
          break;
        default:
          line.insert(at, line.substr(below(line.size()), below(8)));
      }
    }
    const auto parsed = ParseChatLine(line);
    if (!parsed.ok()) {
      ++refused;
      EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
      EXPECT_FALSE(parsed.status().message().empty());
      continue;
    }
    ++accepted;
    ASSERT_FALSE(parsed->turns.empty());
    for (const Turn& turn : parsed->turns) EXPECT_TRUE(IsChatRole(turn.role)) << line;
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace thresher::examples
