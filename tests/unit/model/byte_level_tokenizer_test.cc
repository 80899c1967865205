#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "common/model/tokenizer.h"
#include "common/model/tokenizer/stream_decoder.h"
#include "tests/unit/model/small_tokenizer.h"

namespace thresher::model {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> Make(const TestJson& json) {
  auto tokenizer = Tokenizer::FromJson(json.dump(), "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return std::move(tokenizer).value();
}

// Tokens 256 "ab", 257 "bc", 258 "abc".
TestJson Abc() { return SmallTokenizer({{"a", "b"}, {"b", "c"}, {"ab", "c"}}); }

TEST(ByteLevelTokenizer, MergesTheEarliestPairFirst) {
  const auto tokenizer = Make(Abc());
  EXPECT_EQ(tokenizer->vocab(), 259);
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(258));
  EXPECT_THAT(tokenizer->Encode("abcbcab"), ElementsAre(258, 257, 256));
  EXPECT_THAT(tokenizer->Encode("bcb"), ElementsAre(257, 'b'));
  EXPECT_THAT(tokenizer->Encode(""), IsEmpty());
}

TEST(ByteLevelTokenizer, OfEqualPairsTheLeftmostIsMerged) {
  const auto tokenizer = Make(SmallTokenizer({{"a", "a"}}));
  EXPECT_THAT(tokenizer->Encode("aaa"), ElementsAre(256, 'a'));
}

// "bc" is a token, but "bcd" begins with "b" + "cd".
TEST(ByteLevelTokenizer, AWordThatIsATokenIsMergedUnlessMergesAreIgnored) {
  TestJson json = SmallTokenizer({{"c", "d"}, {"b", "c"}, {"bc", "d"}});
  EXPECT_THAT(Make(json)->Encode("bcd"), ElementsAre('b', 256));
  EXPECT_THAT(Make(json)->Encode("bcd bcd"), ElementsAre('b', 256, ' ', 'b', 256));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(Make(json)->Encode("bcd"), ElementsAre(258));
}

TEST(ByteLevelTokenizer, LongWordsGiveWhatShortOnesGive) {
  const auto tokenizer = Make(SmallTokenizer({{"a", "b"}, {"ab", "ab"}, {"abab", "abab"}}));
  std::string word;
  for (int i = 0; i < 100; ++i) word += "ab";
  const Ids ids = tokenizer->Encode(word);
  EXPECT_EQ(ids, Ids(25, 258));
  EXPECT_EQ(tokenizer->Encode(word + "ab"), [] {
    Ids more(25, 258);
    more.push_back(256);
    return more;
  }());
}

// With a quadratic algorithm a million equal letters would take hours, not seconds.
TEST(ByteLevelTokenizer, AWordOfAMillionBytesTakesNoTimeToSpeakOf) {
  const auto tokenizer = Make(SmallTokenizer({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}));
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, 'a')), Ids(1 << 17, 258));
}

TEST(ByteLevelTokenizer, MalformedUtf8IsTheReplacementCharacter) {
  const auto tokenizer = Make(Abc());
  EXPECT_THAT(tokenizer->Encode("\xF0\x9F\x98"), ElementsAre(0xEF, 0xBF, 0xBD));
  EXPECT_THAT(tokenizer->Encode("a\xED\xA0\x80"),
              ElementsAre('a', 0xEF, 0xBF, 0xBD, 0xEF, 0xBF, 0xBD, 0xEF, 0xBF, 0xBD));
}

TEST(ByteLevelTokenizer, NormalizesToFormCWhenAsked) {
  TestJson json = Abc();
  EXPECT_THAT(Make(json)->Encode("e\u0301"), ElementsAre('e', 0xCC, 0x81));
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_THAT(Make(json)->Encode("e\u0301"), ElementsAre(0xC3, 0xA9));
  // Kirat Rai vowel signs of Unicode 16 would be composed by a newer library.
  EXPECT_EQ(Make(json)->Encode("\U00016D63\U00016D67").size(), 8);
}

TEST(ByteLevelTokenizer, FindsTheLongestAddedToken) {
  TestJson json = Abc();
  json["added_tokens"] = {AddedTokenJson(259, "<x>"), AddedTokenJson(260, "<x><y>")};
  const auto tokenizer = Make(json);
  EXPECT_EQ(tokenizer->vocab(), 261);
  EXPECT_THAT(tokenizer->Encode("abc<x><y><x>"), ElementsAre(258, 260, 259));
  EXPECT_THAT(tokenizer->Encode("<x"), ElementsAre('<', 'x'));
  EXPECT_EQ(tokenizer->TokenId("<x><y>"), 260);
  EXPECT_EQ(tokenizer->TokenId("abc"), 258);
  EXPECT_EQ(tokenizer->TokenId("abcd"), -1);
}

TEST(ByteLevelTokenizer, AddedTokensTakeSpacesOrWholeWords) {
  TestJson json = Abc();
  json["added_tokens"] = {AddedTokenJson(259, "<l>"), AddedTokenJson(260, "<r>"),
                          AddedTokenJson(261, "wv")};
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][1]["rstrip"] = true;
  json["added_tokens"][2]["single_word"] = true;
  const auto tokenizer = Make(json);
  EXPECT_THAT(tokenizer->Encode("abc \u3000<l> abc"), ElementsAre(258, 259, ' ', 258));
  EXPECT_THAT(tokenizer->Encode("<r> \n<l>"), ElementsAre(260, 259));
  EXPECT_THAT(tokenizer->Encode("wv-wvwv wv"), ElementsAre(261, '-', 'w', 'v', 'w', 'v', ' ', 261));
}

TEST(ByteLevelTokenizer, NormalizedTokensAreFoundInNormalizedText) {
  TestJson json = Abc();
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {AddedTokenJson(259, "e\u0301\u4E2D", false, true),
                          AddedTokenJson(260, "\u00E9x", false, false)};
  const auto tokenizer = Make(json);
  EXPECT_THAT(tokenizer->Encode("\u00E9\u4E2D"), ElementsAre(259));
  EXPECT_THAT(tokenizer->Encode("e\u0301\u4E2D"), ElementsAre(259));
  EXPECT_THAT(tokenizer->Encode("e\u0301x"), ElementsAre(0xC3, 0xA9, 'x'));
  EXPECT_THAT(tokenizer->Encode("\u00E9x"), ElementsAre(260));
}

TEST(ByteLevelTokenizer, PutsTheTemplatesTokensAroundTheText) {
  TestJson json = Abc();
  json["added_tokens"] = {AddedTokenJson(259, "<s>"), AddedTokenJson(260, "</s>")};
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                              {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
                            {"pair", TestJson::array()},
                            {"special_tokens",
                             {{"<s>", {{"id", "<s>"}, {"ids", {259}}, {"tokens", {"<s>"}}}},
                              {"</s>", {{"id", "</s>"}, {"ids", {260}}, {"tokens", {"</s>"}}}}}}};
  const auto tokenizer = Make(json);
  EXPECT_THAT(tokenizer->EncodeWithSpecial("abc"), ElementsAre(259, 258, 260));
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(258));
}

TEST(ByteLevelTokenizer, PrefixSpaceComesBeforeEveryStretchOfText) {
  TestJson json = Abc();
  json["pre_tokenizer"]["add_prefix_space"] = true;
  json["added_tokens"] = {AddedTokenJson(259, "<x>")};
  EXPECT_THAT(Make(json)->Encode("abc<x> a<x>"), ElementsAre(' ', 258, 259, ' ', 'a', 259));
}

TEST(ByteLevelTokenizer, DecodesBytesAndLeavesSpecialTokensOut) {
  TestJson json = Abc();
  json["added_tokens"] = {AddedTokenJson(259, "<x>"), AddedTokenJson(260, "<think>", false)};
  const auto tokenizer = Make(json);
  EXPECT_EQ(tokenizer->Decode(Ids{258, 259, 260, ' ', 'a'}), "abc<think> a");
  EXPECT_EQ(tokenizer->Decode(Ids{258, 259, 260}, true), "abc<x><think>");
  EXPECT_EQ(tokenizer->Decode(Ids{0xC3, 'a', 0xA9, 261, -1}), "\uFFFDa\uFFFD\uFFFD\uFFFD");
  const std::string text = "a\n\u00E9\u4E2D\U0001F600 \x01\x7F";
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

// A token of the byte alphabet stands for its bytes even when it was added as text.
TEST(ByteLevelTokenizer, AddedTokensAreDecodedAsTheTokenizersPackageDoes) {
  TestJson json = Abc();
  json["added_tokens"] = {AddedTokenJson(259, "\u00E9\u00E9", false),
                          AddedTokenJson(260, "\u00E9 ", false)};
  EXPECT_EQ(Make(json)->Decode(Ids{259, 260}), "\uFFFD\uFFFD\u00E9 ");
}

TEST(StreamDecoder, NeverEndsWithinACharacter) {
  const auto tokenizer = Make(Abc());
  StreamDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.Append(0xF0), "");
  EXPECT_EQ(decoder.Append(0x9F), "");
  EXPECT_EQ(decoder.Append(0x98), "");
  EXPECT_EQ(decoder.Append(0x80), "\U0001F600");
  EXPECT_EQ(decoder.Append(258), "abc");
  EXPECT_EQ(decoder.Append(0xE2), "");
  EXPECT_EQ(decoder.Append('a'), "\uFFFDa");
  EXPECT_EQ(decoder.Append(0xFF), "\uFFFD");
  EXPECT_EQ(decoder.Append(0xC3), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(StreamDecoder, TogetherItsPartsAreDecode) {
  TestJson json =
      SmallTokenizer({{"\xF0", "\x9F"}, {"\x98", "\x80"}, {"a", "\xE2"}, {"\xAC", "b"}});
  json["added_tokens"] = {AddedTokenJson(260, "<x>")};
  const auto tokenizer = Make(json);
  std::uint32_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    Ids ids;
    const std::int32_t pool[] = {256,  257,  258, 259, 260, 0x82, 0xE2,
                                 0x9F, 0x80, 'a', -1,  261, 0xED, 0xA0};
    for (int i = 0; i < 8; ++i) {
      state = state * 1664525 + 1013904223;
      ids.push_back(pool[(state >> 16) % std::size(pool)]);
    }
    for (const bool special : {false, true}) {
      StreamDecoder decoder(*tokenizer, special);
      std::string text;
      for (std::int32_t id : ids) text += decoder.Append(id);
      ASSERT_EQ(text + decoder.Finish(), tokenizer->Decode(ids, special));
    }
  }
}

}  // namespace
}  // namespace thresher::model
