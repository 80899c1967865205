// What a byte-level tokenizer.json may not say: every refusal names file, key and what is allowed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "common/model/tokenizer.h"
#include "tests/unit/model/small_tokenizer.h"

namespace thresher::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const std::string& text, StatusCode code = StatusCode::kInvalidArgument) {
  const auto result = Tokenizer::FromJson(text, "m/tokenizer.json");
  EXPECT_EQ(result.status().code(), code) << result.status().ToString() << "\n"
                                          << text.substr(0, 300);
  EXPECT_THAT(result.status().message(), HasSubstr("m/tokenizer.json"));
  return result.status().message();
}

std::string MessageAfter(const std::function<void(TestJson&)>& change) {
  TestJson json = SmallTokenizer({{"a", "b"}, {"ab", "c"}});
  EXPECT_TRUE(Tokenizer::FromJson(json.dump(), "t").ok());
  change(json);
  return Message(json.dump());
}

TEST(TokenizerSpec, RefusesOtherModels) {
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["type"] = "Unigram"; }),
              AllOf(HasSubstr("'model.type'"), HasSubstr("\"BPE\"")));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["dropout"] = 0.1; }),
              HasSubstr("'model.dropout'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["end_of_word_suffix"] = "</w>"; }),
              HasSubstr("'model.end_of_word_suffix'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["surprise"] = 1; }),
              HasSubstr("'model.surprise'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["ignore_merges"] = "yes"; }),
              HasSubstr("'model.ignore_merges'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j.erase("model"); }), HasSubstr("'model'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["extra"] = 1; }), HasSubstr("'extra'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["version"] = "2.0"; }), HasSubstr("'version'"));
}

TEST(TokenizerSpec, RefusesAVocabularyWithoutOrder) {
  const auto vocab = [](const std::function<void(TestJson&)>& change) {
    return MessageAfter([&](TestJson& j) { change(j["model"]["vocab"]); });
  };
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"].erase("vocab"); }),
              AllOf(HasSubstr("'model.vocab'"), HasSubstr("missing")));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["vocab"] = TestJson::array({1}); }),
              HasSubstr("'model.vocab'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["vocab"] = "none"; }),
              HasSubstr("'model.vocab'"));
  EXPECT_THAT(vocab([](TestJson& v) { v = TestJson::object(); }), HasSubstr("missing or empty"));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = 256; }),
              AllOf(HasSubstr("\"abc\""), HasSubstr("the id of \"ab\"")));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = 258; }),
              AllOf(HasSubstr("258"), HasSubstr("0 to 257")));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = -1; }), HasSubstr("-1"));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = 1.5; }),
              AllOf(HasSubstr("\"abc\""), HasSubstr("whole number")));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = TestJson::array({3}); }), HasSubstr("\"abc\""));
  EXPECT_THAT(vocab([](TestJson& v) { v["abc"] = 18446744073709551615u; }),
              HasSubstr("'model.vocab'"));
  EXPECT_THAT(vocab([](TestJson& v) {
                v.erase("a");
                v["abc"] = 97;
                v["ab"] = 256;
              }),
              HasSubstr("byte 97"));
}

TEST(TokenizerSpec, RefusesATokenOrTableThatStandsTwice) {
  std::string text = SmallTokenizer({{"a", "b"}}).dump();
  const std::size_t at = text.find("\"ab\":256");
  ASSERT_NE(at, std::string::npos);
  EXPECT_THAT(Message(std::string(text).insert(at, "\"b\":257,")), HasSubstr("\"b\" twice"));
  EXPECT_THAT(Message(std::string(text).insert(text.find("\"vocab\""), "\"vocab\":{},")),
              HasSubstr("stands twice"));
  EXPECT_THAT(Message(std::string(text).insert(text.find("\"merges\""), "\"merges\":[],")),
              HasSubstr("stands twice"));
}

TEST(TokenizerSpec, RefusesMergesOfUnknownTokens) {
  const auto merges = [](const TestJson& merge) {
    return MessageAfter([&](TestJson& j) { j["model"]["merges"].push_back(merge); });
  };
  EXPECT_THAT(merges({"a", "xyz"}), AllOf(HasSubstr("'model.merges[2]'"), HasSubstr("\"xyz\"")));
  EXPECT_THAT(merges({"b", "c"}), HasSubstr("\"bc\""));
  EXPECT_THAT(merges("a xyz"), HasSubstr("\"xyz\""));
  EXPECT_THAT(merges("a b c"), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges("ab"), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges({"a"}), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges({"a", "b", "c"}), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges({"a", 1}), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges(7), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(merges({{"a", "b"}}), HasSubstr("'model.merges[2]'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"]["merges"] = TestJson::object(); }),
              HasSubstr("'model.merges'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["model"].erase("merges"); }),
              HasSubstr("'model.merges'"));
}

TEST(TokenizerSpec, MergesMayBeLines) {
  TestJson json = SmallTokenizer({{"a", "b"}, {"ab", "c"}});
  json["model"]["merges"] = {"#version: 0.2", "a b", "ab c"};
  const auto tokenizer = Tokenizer::FromJson(json.dump(), "t");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_EQ((*tokenizer)->Encode("abc"), std::vector<std::int32_t>{257});
}

TEST(TokenizerSpec, RefusesAddedTokensWithOtherIdsThanTheyGet) {
  const auto added = [](std::vector<TestJson> tokens) {
    return MessageAfter([&](TestJson& j) { j["added_tokens"] = tokens; });
  };
  EXPECT_THAT(added({AddedTokenJson(259, "<x>")}),
              AllOf(HasSubstr("'added_tokens[0].id'"), HasSubstr("allowed: 258")));
  EXPECT_THAT(added({AddedTokenJson(258, "<x>"), AddedTokenJson(258, "<y>")}),
              HasSubstr("allowed: 259"));
  EXPECT_THAT(added({AddedTokenJson(258, "ab")}), HasSubstr("allowed: 256"));
  EXPECT_THAT(added({AddedTokenJson(256, "ab"), AddedTokenJson(256, "ab")}),
              HasSubstr("stands twice"));
  EXPECT_THAT(added({AddedTokenJson(258, "")}), HasSubstr("'added_tokens[0].content'"));
  EXPECT_THAT(added({AddedTokenJson(-1, "<x>")}), HasSubstr("'added_tokens[0].id'"));
  TestJson odd = AddedTokenJson(258, "<x>");
  odd.erase("special");
  EXPECT_THAT(added({odd}), HasSubstr("'added_tokens[0].special'"));
  EXPECT_THAT(added({TestJson(3)}), HasSubstr("'added_tokens[0]'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["added_tokens"] = "x"; }),
              HasSubstr("'added_tokens'"));
}

TEST(TokenizerSpec, RefusesOtherStages) {
  EXPECT_THAT(MessageAfter([](TestJson& j) {
                j["normalizer"] = {{"type", "NFKC"}};
              }),
              AllOf(HasSubstr("'normalizer.type'"), HasSubstr("NFC")));
  EXPECT_THAT(
      MessageAfter([](TestJson& j) {
        j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
      }),
      HasSubstr("'normalizer.normalizers[0].type'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["normalizer"] = 3; }), HasSubstr("'normalizer'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["pre_tokenizer"] = nullptr; }),
              HasSubstr("'pre_tokenizer'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) {
                j["pre_tokenizer"] = {{"type", "Metaspace"}};
              }),
              HasSubstr("'pre_tokenizer.type'"));
  EXPECT_THAT(
      MessageAfter([](TestJson& j) { j["pre_tokenizer"] = SplitBy("[a-z]+"); }),
      AllOf(HasSubstr("'pre_tokenizer.pretokenizers[0].pattern.Regex'"), HasSubstr("Qwen2")));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["pre_tokenizer"]["add_prefix_space"] = 1; }),
              HasSubstr("'pre_tokenizer.add_prefix_space'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) { j["decoder"] = nullptr; }), HasSubstr("'decoder'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) {
                j["decoder"] = {{"type", "Metaspace"}};
              }),
              HasSubstr("'decoder'"));
  EXPECT_THAT(MessageAfter([](TestJson& j) {
                j["post_processor"] = {{"type", "BertProcessing"}};
              }),
              HasSubstr("'post_processor.type'"));
}

TEST(TokenizerSpec, RefusesTemplatesWithUnknownTokens) {
  const auto single = [](const TestJson& pieces, const TestJson& ids) {
    return MessageAfter([&](TestJson& j) {
      j["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", pieces},
                             {"pair", TestJson::array()},
                             {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", ids}}}}}};
    });
  };
  const TestJson text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const TestJson token = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  EXPECT_THAT(single({token, text}, {258}),
              AllOf(HasSubstr("'post_processor.special_tokens.<s>.ids'"), HasSubstr("0 to 257")));
  EXPECT_THAT(single({token, text}, "x"), HasSubstr("'post_processor.special_tokens.<s>.ids'"));
  EXPECT_THAT(single(TestJson::array({token}), {1}), HasSubstr("no Sequence A"));
  EXPECT_THAT(single({text, text}, {1}), HasSubstr("'post_processor.single[1]'"));
  EXPECT_THAT(single("x", {1}), HasSubstr("'post_processor.single'"));
}

TEST(TokenizerSpec, DamagedTextIsDataLoss) {
  const std::string text = SmallTokenizer({{"a", "b"}}).dump();
  for (std::size_t size : {std::size_t{0}, std::size_t{1}, text.size() / 9, text.size() / 2})
    Message(text.substr(0, size), StatusCode::kDataLoss);
  Message(text.substr(0, text.size() - 1), StatusCode::kDataLoss);
  Message(std::string(100'000, '['), StatusCode::kDataLoss);
  Message("[]");
}

TEST(TokenizerSpec, DeepNestingIsRefusedBeforeAnybodyWalksIt) {
  const std::string deep(400000, '[');
  for (const char* key : {"version", "truncation", "normalizer"}) {
    EXPECT_THAT(Message("{\"" + std::string(key) + "\": " + deep, StatusCode::kDataLoss),
                HasSubstr("nests deeper than 32"));
  }
}

TEST(TokenizerSpec, ThereMayBeThousandsOfAddedTokens) {
  TestJson json = SmallTokenizer();
  for (int i = 0; i < 3000; ++i) {
    json["added_tokens"].push_back({{"id", 256 + i},
                                    {"content", "<|" + std::to_string(i) + "|>"},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  const auto tokenizer = Tokenizer::FromJson(json.dump(), "t");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_EQ((*tokenizer)->TokenId("<|2999|>"), 3255);
}

TEST(TokenizerSpec, AnObjectOfThousandsOfKeysIsRefused) {
  EXPECT_THAT(MessageAfter([](TestJson& j) {
                for (int i = 0; i < 5000; ++i) j["padding"]["key" + std::to_string(i)] = i;
              }),
              HasSubstr("'padding'"));
}

}  // namespace
}  // namespace thresher::model
