#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/data/files.h"
#include "common/model/tokenizer.h"
#include "tests/unit/model/small_tokenizer.h"

namespace thresher::model {
namespace {

using ::testing::HasSubstr;

class TokenizerFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(::testing::TempDir()) /
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(root_ / "in/additional_chat_templates");
    std::filesystem::create_directories(root_ / "out");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(root_ / "in" / name) << text;
  }
  std::filesystem::path root_;
};

TEST_F(TokenizerFiles, AreWrittenBackByteForByte) {
  TestJson json = SmallTokenizer({{"a", "b"}});
  json["added_tokens"] = {AddedTokenJson(257, "<x>")};
  const std::pair<std::string, std::string> files[] = {
      {"tokenizer.json", json.dump(3) + "\n\n"},
      {"tokenizer_config.json",
       "{ \"added_tokens_decoder\" : {\"257\": {\"content\": \"<x>\"}} , \"odd\":1}"},
      {"chat_template.jinja", "{{ x }}"},
      {"special_tokens_map.json", "not read"},
      {"vocab.json", "{}"},
      {"merges.txt", "#version: 0.2\n"},
      {"additional_chat_templates/rag.jinja", "{{ y }}"}};
  for (const auto& [name, text] : files) Write(name, text);
  Write("model.safetensors", "of others");
  const auto tokenizer = LoadTokenizer(root_ / "in");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  ASSERT_TRUE(SaveTokenizer(root_ / "out", **tokenizer).ok());
  for (const auto& [name, text] : files) EXPECT_EQ(*ReadFile(root_ / "out" / name), text) << name;
  EXPECT_FALSE(std::filesystem::exists(root_ / "out/model.safetensors"));
  EXPECT_EQ((*tokenizer)->ToJson(), files[0].second);
}

TEST_F(TokenizerFiles, OfOurOwnAlphabetAreTwo) {
  const auto tokenizer = Tokenizer::FromAlphabet("ab");
  ASSERT_TRUE(SaveTokenizer(root_ / "out", **tokenizer).ok());
  const auto back = LoadTokenizer(root_ / "out");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ((*back)->Hash(), (*tokenizer)->Hash());
  EXPECT_EQ((*back)->Files().size(), 2);
  EXPECT_EQ(*ReadFile(root_ / "out/tokenizer_config.json"), (*tokenizer)->ConfigJson());
}

TEST_F(TokenizerFiles, MustAgree) {
  EXPECT_EQ(LoadTokenizer(root_ / "in").status().code(), StatusCode::kNotFound);
  Write("tokenizer.json", SmallTokenizer({{"a", "b"}}).dump());
  ASSERT_TRUE(LoadTokenizer(root_ / "in").ok());
  const auto message = [&](const std::string& config) {
    Write("tokenizer_config.json", config);
    return LoadTokenizer(root_ / "in").status().ToString();
  };
  EXPECT_EQ(message(R"({"added_tokens_decoder": {"256": {"content": "ab"}}})"), "OK");
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"257": {"content": "<x>"}}})"),
              HasSubstr("tokenizer_config.json: key 'added_tokens_decoder.257'"));
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"x": {"content": "ab"}}})"),
              HasSubstr("'added_tokens_decoder.x'"));
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"256": 3}})"),
              HasSubstr("'added_tokens_decoder.256'"));
  EXPECT_THAT(message("{"), HasSubstr("DATA_LOSS"));
}

}  // namespace
}  // namespace thresher::model
