#include "actor/engine/page_allocator.h"

#include <gtest/gtest.h>

#include <set>

namespace thresher::actor {
namespace {

TEST(PageAllocator, HandsOutEveryPageOnce) {
  PageAllocator pages(10);
  std::set<std::int32_t> seen;
  for (int i = 10; i > 0; --i) {
    EXPECT_EQ(pages.available(), i);
    const std::int32_t page = pages.Take();
    EXPECT_TRUE(page >= 0 && page < 10);
    EXPECT_TRUE(seen.insert(page).second) << page << " was handed out twice";
    EXPECT_EQ(pages.holders(page), 1);
  }
  EXPECT_EQ(pages.available(), 0);
}

TEST(PageAllocator, APageIsFreeWhenItsLastHolderIsGoneAndItWasMadeFree) {
  PageAllocator pages(3);
  const std::int32_t page = pages.Take();
  pages.Share(page);
  pages.Share(page);
  EXPECT_EQ(pages.shared(), 1);
  EXPECT_FALSE(pages.Release(page));
  EXPECT_EQ(pages.shared(), 1);
  EXPECT_FALSE(pages.Release(page));
  EXPECT_EQ(pages.shared(), 0);
  EXPECT_TRUE(pages.Release(page));
  EXPECT_EQ(pages.available(), 2);  // idle: its content may be wanted
  pages.Share(page);
  EXPECT_EQ(pages.holders(page), 1);
  EXPECT_TRUE(pages.Release(page));
  pages.Free(page);
  EXPECT_EQ(pages.available(), 3);
}

TEST(PageAllocatorDeathTest, APageInTheWrongStateIsABug) {
  PageAllocator pages(2);
  EXPECT_DEATH(pages.Share(0), "free KV page");
  EXPECT_DEATH((void)pages.Release(0), "nobody holds");
  EXPECT_DEATH(pages.Free(0), "only an idle");
  EXPECT_DEATH(pages.Share(2), "no such KV page");
  EXPECT_DEATH(pages.Share(-1), "no such KV page");
  const std::int32_t page = pages.Take();
  EXPECT_DEATH(pages.Free(page), "only an idle");
  pages.Take();
  EXPECT_DEATH(pages.Take(), "no KV page is free");
}

}  // namespace
}  // namespace thresher::actor
