#include "actor/engine/page_allocator.h"

#include <gtest/gtest.h>

#include <set>

namespace thresher::actor {
namespace {

TEST(PageAllocator, HandsOutEveryPageOnce) {
  PageAllocator pages(10);
  std::set<std::int32_t> seen;
  for (int count : {3, 0, 5, 2}) {
    auto taken = pages.Take(count);
    ASSERT_TRUE(taken.ok());
    EXPECT_EQ(taken->size(), static_cast<std::size_t>(count));
    for (std::int32_t page : *taken) {
      EXPECT_TRUE(page >= 0 && page < 10);
      EXPECT_TRUE(seen.insert(page).second) << page << " was handed out twice";
    }
  }
  EXPECT_EQ(pages.available(), 0);
}

TEST(PageAllocator, TakesNothingWhenThereIsNotEnough) {
  PageAllocator pages(4);
  auto first = pages.Take(3);
  ASSERT_TRUE(first.ok());
  auto second = pages.Take(2);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(pages.available(), 1);
  pages.Give(*first);
  EXPECT_EQ(pages.available(), 4);
  EXPECT_TRUE(pages.Take(4).ok());
}

TEST(PageAllocatorDeathTest, RefusesPagesThatWereNotTaken) {
  PageAllocator pages(4);
  EXPECT_DEATH(pages.Give({1}), "more pages given back");
  auto taken = pages.Take(2);
  EXPECT_DEATH(pages.Give({4}), "never handed out");
  EXPECT_DEATH(pages.Give({-1}), "never handed out");
}

}  // namespace
}  // namespace thresher::actor
