#include "actor/engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>

namespace thresher::actor {
namespace {

using Tokens = std::vector<std::int32_t>;

Tokens Counting(std::int32_t first, std::size_t count) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(PrefixCache, FindsWholePagesAndThenTheBestTail) {
  PrefixCache cache(10);
  const Tokens text = Counting(100, 40);
  const std::span<const std::int32_t> all(text);
  cache.Put(3, PrefixCache::kNone, all.first(16));
  cache.Put(7, 3, all.subspan(16, 16));
  cache.Put(1, 7, all.subspan(32, 5));
  const auto expect = [&](std::span<const std::int32_t> tokens, Tokens pages, std::int32_t tail,
                          std::int32_t positions) {
    const PrefixCache::Match match = cache.Find(tokens);
    EXPECT_EQ(match.pages, pages);
    EXPECT_EQ(match.tail_page, tail);
    EXPECT_EQ(match.tail_positions, positions);
  };
  expect(all, {3, 7}, 1, 5);
  expect(all.first(35), {3, 7}, 1, 3);
  expect(all.first(32), {3, 7}, PrefixCache::kNone, 0);
  expect(all.first(31), {3}, 7, 15);
  expect(all.first(1), {}, 3, 1);
  expect(all.subspan(1), {}, PrefixCache::kNone, 0);
  expect({}, {}, PrefixCache::kNone, 0);
  Tokens other = text;
  other[20] = 0;
  expect(other, {3}, 7, 4);
}

TEST(PrefixCache, OfSeveralTailsTheOneWithTheLongestCommonPrefixIsFound) {
  PrefixCache cache(10);
  const Tokens tails[] = {{5, 1},    {5, 3, 3, 3}, {5, 3, 3, 9, 9},
                          {5, 3, 4}, {6},          {5, 3, 3, 9, 8, 1}};
  for (std::int32_t i = 0; i < 6; ++i) cache.Put(i, PrefixCache::kNone, tails[i]);
  const auto tail = [&](const Tokens& tokens) {
    const auto match = cache.Find(tokens);
    return std::pair(match.tail_page, match.tail_positions);
  };
  EXPECT_EQ(tail({5, 3, 3, 9, 9, 9}), (std::pair<std::int32_t, std::int32_t>(2, 5)));
  EXPECT_EQ(tail({5, 3, 3, 9, 8}), (std::pair<std::int32_t, std::int32_t>(5, 5)));
  EXPECT_EQ(tail({5, 1, 7}), (std::pair<std::int32_t, std::int32_t>(0, 2)));
  EXPECT_EQ(tail({5, 9}).second, 1);
  EXPECT_EQ(tail({7}).second, 0);
}

TEST(PrefixCache, EqualPagesStandSideBySideAndGrow) {
  PrefixCache cache(10);
  const Tokens text = Counting(0, 16);
  const std::span<const std::int32_t> all(text);
  for (std::int32_t page : {4, 2, 6}) cache.Put(page, PrefixCache::kNone, all.first(4));
  cache.Put(2, PrefixCache::kNone, all);  // filled further
  EXPECT_EQ(cache.Find(all).pages, Tokens{2});
  cache.Remove(2);
  EXPECT_FALSE(cache.Has(2));
  EXPECT_EQ(cache.Find(all).tail_positions, 4);
  cache.Remove(4);
  cache.Remove(6);
  EXPECT_EQ(cache.Find(all).tail_positions, 0);
}

TEST(PrefixCacheDeathTest, BrokenTreesAreBugs) {
  PrefixCache cache(4);
  const Tokens text = Counting(0, 17);
  const std::span<const std::int32_t> all(text);
  cache.Put(0, PrefixCache::kNone, all.first(3));
  EXPECT_DEATH(cache.Put(1, 0, all.first(3)), "not whole");
  EXPECT_DEATH(cache.Put(1, PrefixCache::kNone, all), "no or too many");
  EXPECT_DEATH(cache.Put(0, PrefixCache::kNone, all.subspan(1, 4)), "first tokens");
  cache.Put(0, PrefixCache::kNone, all.first(16));
  cache.Put(1, 0, all.first(3));
  EXPECT_DEATH(cache.Remove(0), "with successors");
  EXPECT_DEATH(cache.Remove(2), "unknown");
}

}  // namespace
}  // namespace thresher::actor
