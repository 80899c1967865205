#include "common/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thresher::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<Tokenizer> Make(std::string_view alphabet) {
  auto tokenizer = Tokenizer::FromAlphabet(alphabet);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return std::move(tokenizer).value();
}

TEST(Tokenizer, IdsFollowByteOrderAfterTheSpecialTokens) {
  const auto tokenizer = Make("b1a\n\xC3\xA4");  // ends in a-umlaut
  EXPECT_EQ(tokenizer->vocab(), 9);
  EXPECT_THAT(tokenizer->Encode("\n1ab\xC3\xA4"), ElementsAre(4, 5, 6, 7, 8));
}

TEST(Tokenizer, AddsNothingByItself) {
  EXPECT_THAT(Make("ab")->Encode(""), IsEmpty());
  EXPECT_THAT(Make("ab")->Encode("ba"), ElementsAre(5, 4));
}

TEST(Tokenizer, SpecialTokensInTextAreThemselves) {
  const auto tokenizer = Make("<abos>");
  EXPECT_THAT(tokenizer->Encode("a<bos>b"), ElementsAre(6, Tokenizer::kBos, 7));
  EXPECT_THAT(tokenizer->Encode("<<eos>>"), ElementsAre(4, Tokenizer::kEos, 5));
  EXPECT_THAT(tokenizer->Encode("<bos"), ElementsAre(4, 7, 8, 9));
  EXPECT_THAT(tokenizer->Encode("<pad><unk>"), ElementsAre(Tokenizer::kPad, Tokenizer::kUnk));
  EXPECT_THAT(tokenizer->Encode("<BOS>").size(), 5);
}

TEST(Tokenizer, EveryUnknownCharacterIsOneUnknownToken) {
  const auto tokenizer = Make("ab");
  EXPECT_THAT(tokenizer->Encode("a?\xE2\x82\xAC"
                                "\xF0\x9F\x98\x80"
                                "b"),
              ElementsAre(4, 3, 3, 3, 5));
}

// Counts of replacements as in "Unicode 15, section 3.9, maximal subparts".
TEST(Tokenizer, MalformedUtf8IsUnknownByMaximalSubparts) {
  const auto tokenizer = Make("ab");
  EXPECT_THAT(tokenizer->Encode("a\xE2\x82"
                                "b"),
              ElementsAre(4, 3, 5));
  EXPECT_THAT(tokenizer->Encode("\xC0\xAF"), ElementsAre(3, 3));                // overlong
  EXPECT_THAT(tokenizer->Encode("\xED\xA0\x80"), ElementsAre(3, 3, 3));         // surrogate
  EXPECT_THAT(tokenizer->Encode("\xF4\x90\x80\x80"), ElementsAre(3, 3, 3, 3));  // above U+10FFFF
  EXPECT_THAT(tokenizer->Encode("\xF0\x9F\x98"), ElementsAre(3));
}

TEST(Tokenizer, DecodesWhatItEncodes) {
  const auto tokenizer = Make("0123456789+-*/=,;() \n\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
  const std::string text = "3*(4+5)=27, \n\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80 ;";
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

TEST(Tokenizer, LeavesSpecialTokensOutUnlessAskedFor) {
  const auto tokenizer = Make("ab");
  const std::vector<std::int32_t> ids = {1, 4, 3, 5, 2, 0};
  EXPECT_EQ(tokenizer->Decode(ids), "ab");
  EXPECT_EQ(tokenizer->Decode(ids, true), "<bos>a<unk>b<eos><pad>");
  EXPECT_EQ(tokenizer->Decode(std::vector<std::int32_t>{-1, 4, 6}),
            "\xEF\xBF\xBD"
            "a\xEF\xBF\xBD");
}

TEST(Tokenizer, RefusesBadAlphabets) {
  EXPECT_THAT(Tokenizer::FromAlphabet("").status().message(), HasSubstr("empty"));
  EXPECT_THAT(Tokenizer::FromAlphabet("aba").status().message(), HasSubstr("'a' stands twice"));
  EXPECT_THAT(Tokenizer::FromAlphabet("ab\xFF").status().message(), HasSubstr("byte 2"));
  EXPECT_EQ(Tokenizer::FromAlphabet("").status().code(), StatusCode::kInvalidArgument);
}

TEST(TokenizerJson, ReadsBackWhatItWrites) {
  const auto tokenizer = Make("a\"\\\n\x01<\xE2\x82\xAC");
  const auto back = Tokenizer::FromJson(tokenizer->ToJson(), "tokenizer.json");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ((*back)->ToJson(), tokenizer->ToJson());
  EXPECT_EQ((*back)->Hash(), tokenizer->Hash());
  EXPECT_NE(tokenizer->Hash(), Make("ab")->Hash());
}

TEST(TokenizerJson, NamesFileAndKeyOfWhatItDoesNotWrite) {
  const std::string json = Make("ab")->ToJson();
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string changed = json;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    changed.replace(at, from.size(), to);
    const auto result = Tokenizer::FromJson(changed, "m/tokenizer.json");
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument) << to;
    EXPECT_THAT(result.status().message(), HasSubstr("m/tokenizer.json"));
    return result.status().message();
  };
  EXPECT_THAT(message("\"fuse_unk\": false", "\"fuse_unk\": true"), HasSubstr("'model.fuse_unk'"));
  EXPECT_THAT(message("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"),
              HasSubstr("'normalizer'"));
  EXPECT_THAT(message("\"a\": 4", "\"a\": 5"), HasSubstr("'model.vocab.a'"));
  EXPECT_THAT(message("\"a\": 4", "\"aa\": 4"), HasSubstr("'model.vocab'"));
  EXPECT_THAT(message("\"BPE\"", "\"WordPiece\""), HasSubstr("'model.type'"));
  EXPECT_THAT(message("\"version\": \"1.0\",", ""), HasSubstr("'version'"));
  EXPECT_THAT(message("\"version\"", "\"extra\": 1, \"version\""), HasSubstr("'extra'"));
  EXPECT_THAT(message("\"id\": 1,", "\"id\": 2,"), HasSubstr("'added_tokens'"));
}

TEST(TokenizerJson, DamagedTextIsDataLoss) {
  const std::string json = Make("ab")->ToJson();
  EXPECT_EQ(Tokenizer::FromJson(json.substr(0, 50), "t").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Tokenizer::FromJson("{}", "t").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thresher::model
