#include "common/base/shared_bytes.h"

#include <gtest/gtest.h>

namespace thresher {
namespace {

TEST(SharedBytesTest, SlicesShareTheirOwnerAndOutliveTheWhole) {
  SharedBytes slice;
  const char* where = nullptr;
  {
    const SharedBytes whole(std::string(1000, 'x') + "tail");
    slice = whole.Slice(1000, 4);
    where = whole.data() + 1000;
    EXPECT_EQ(slice.owner(), whole.owner());
  }
  EXPECT_EQ(slice.data(), where);
  EXPECT_EQ(slice, "tail");
  EXPECT_EQ(slice.owner_bytes(), 1004u);
}

TEST(SharedBytesTest, ACopyOwnsWhatItShowsAlone) {
  const SharedBytes whole(std::string(1000, 'x') + "tail");
  const SharedBytes copy = whole.Slice(1000, 4).Copy();
  EXPECT_EQ(copy, "tail");
  EXPECT_NE(copy.owner(), whole.owner());
  EXPECT_EQ(copy.owner_bytes(), 4u);
}

TEST(SharedBytesTest, ShortTextsStayWhereTheyAreWhenBytesAreMoved) {
  SharedBytes from(std::string("abc"));  // fits into the string object itself
  const SharedBytes to = std::move(from);
  EXPECT_EQ(to, SharedBytes("abc"));
  EXPECT_EQ(to.ToString(), "abc");
}

TEST(SharedBytesTest, EqualMeansEqualBytes) {
  EXPECT_EQ(SharedBytes("ab"), SharedBytes(std::string("ab")));
  EXPECT_NE(SharedBytes("ab"), "abc");
  EXPECT_EQ(SharedBytes(), "");
}

}  // namespace
}  // namespace thresher
