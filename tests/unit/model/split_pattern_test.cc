#include "common/model/tokenizer/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace thresher::model {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Pieces(SplitPattern pattern, std::string_view text) {
  const WordSplitter splitter(pattern);
  std::vector<std::string> pieces;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = splitter.PieceEnd(text, at);
    pieces.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

// The expected pieces are what Oniguruma's matches are (by hand; tests/parity/tokenizers compares
// with the library itself).
TEST(SplitPattern, ContractionsStandAlone) {
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "it's WE'LL"), ElementsAre("it", "'s", " WE", "'", "LL"));
  EXPECT_THAT(Pieces(SplitPattern::kQwen2, "it's WE'LL'x"),
              ElementsAre("it", "'s", " WE", "'LL", "'x"));
  // Without regard to case, the long s is an s.
  EXPECT_THAT(Pieces(SplitPattern::kLlama3, "it'\u017Fo"), ElementsAre("it", "'\u017F", "o"));
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "'re'r"), ElementsAre("'re", "'", "r"));
}

TEST(SplitPattern, NumbersAreOneThreeOrAnyDigits) {
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "a 1234\u0661"), ElementsAre("a", " 1234\u0661"));
  EXPECT_THAT(Pieces(SplitPattern::kQwen2, " 12"), ElementsAre(" ", "1", "2"));
  EXPECT_THAT(Pieces(SplitPattern::kLlama3, "1234567"), ElementsAre("123", "456", "7"));
}

TEST(SplitPattern, AWordTakesWhatStandsBeforeIt) {
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "(a\tb"), ElementsAre("(", "a", "\t", "b"));
  EXPECT_THAT(Pieces(SplitPattern::kQwen2, "(a\tb\nc"), ElementsAre("(a", "\tb", "\n", "c"));
}

TEST(SplitPattern, SymbolsTakeLineEndsAlong) {
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "a ;\n\n"), ElementsAre("a", " ;", "\n\n"));
  EXPECT_THAT(Pieces(SplitPattern::kQwen2, "a ;\r\n\nb"), ElementsAre("a", " ;\r\n\n", "b"));
}

TEST(SplitPattern, WhiteSpaceLeavesItsLastCharacterToTheWord) {
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "   a"), ElementsAre("  ", " a"));
  EXPECT_THAT(Pieces(SplitPattern::kGpt2, "  \u3000a "), ElementsAre("  ", "\u3000", "a", " "));
  EXPECT_THAT(Pieces(SplitPattern::kQwen2, "a \n \t\n  b  "),
              ElementsAre("a", " \n \t\n", " ", " b", "  "));
  EXPECT_THAT(Pieces(SplitPattern::kLlama3, "  1"), ElementsAre(" ", " ", "1"));
}

TEST(SplitPattern, OnlyKnownTextsAreRecognised) {
  EXPECT_EQ(RecognisePattern(
                R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"),
            SplitPattern::kGpt2);
  EXPECT_EQ(RecognisePattern(R"(\s+)"), std::nullopt);
  EXPECT_EQ(RecognisePattern(""), std::nullopt);
}

}  // namespace
}  // namespace thresher::model
