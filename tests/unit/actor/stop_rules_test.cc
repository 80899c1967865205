#include "actor/engine/stop_rules.h"

#include <gtest/gtest.h>

namespace thresher::actor {
namespace {

// A request whose token t adds text[t].
GenerationRequest Request(std::vector<std::string> text, std::vector<std::string> stops) {
  GenerationRequest request;
  request.stop_strings = std::move(stops);
  request.decode = [text = std::move(text)](std::int32_t token) {
    return text[static_cast<std::size_t>(token)];
  };
  return request;
}

// Tokens taken until the rules end the sequence; all + 1 if they do not.
std::size_t Taken(const GenerationRequest& request, std::size_t tokens,
                  std::int32_t* stop_string = nullptr) {
  StopRules rules(request);
  for (std::size_t i = 0; i < tokens; ++i) {
    const bool ends = rules.Ends(static_cast<std::int32_t>(i));
    if (stop_string != nullptr) *stop_string = rules.stop_string();
    EXPECT_EQ(ends, rules.stop_string() >= 0);
    if (ends) return i + 1;
  }
  return tokens + 1;
}

TEST(StopRules, AnyOfTheStopTokensEnds) {
  GenerationRequest request;
  request.stop_tokens = {7, 2};
  StopRules rules(request);
  EXPECT_FALSE(rules.Ends(3));
  EXPECT_TRUE(rules.Ends(2));
  EXPECT_EQ(rules.stop_string(), -1);
}

TEST(StopRules, AStopStringIsFoundAcrossAndWithinTokens) {
  EXPECT_EQ(Taken(Request({"ab", "c", "def"}, {"bcd"}), 3), 3u);
  EXPECT_EQ(Taken(Request({"ab", "c", "def"}, {"e"}), 3), 3u);
  EXPECT_EQ(Taken(Request({"ab", "", "cdef"}, {"bc"}), 3), 3u);
  EXPECT_EQ(Taken(Request({"ab", "c", "def"}, {"abcdefg"}), 3), 4u);
  EXPECT_EQ(Taken(Request({"aaab"}, {"aab"}), 1), 1u);
  EXPECT_EQ(Taken(Request({"a", "a", "a", "b"}, {"aab"}), 4), 4u);
  EXPECT_EQ(Taken(Request({"x", "STOP", "y"}, {"longer stop string", "STOP"}), 3), 2u);
}

TEST(StopRules, TheFirstAndThenTheLongestStopStringIsReported) {
  std::int32_t which = -1;
  EXPECT_EQ(Taken(Request({"a;b."}, {".", ";", ";b"}), 1, &which), 1u);
  EXPECT_EQ(which, 2);
  EXPECT_EQ(Taken(Request({"a.b;"}, {";", "."}), 1, &which), 1u);
  EXPECT_EQ(which, 1);
}

TEST(StopRules, AStopTokenIsDecodedAsWell) {
  GenerationRequest request = Request({"a", "b"}, {"ab"});
  request.stop_tokens = {1};
  StopRules rules(request);
  EXPECT_FALSE(rules.Ends(0));
  EXPECT_TRUE(rules.Ends(1));
  EXPECT_EQ(rules.stop_string(), 0);
}

}  // namespace
}  // namespace thresher::actor
