#include "common/comm/nccl_hello.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thresher::comm {
namespace {

using ::testing::HasSubstr;

NcclHello Hello(std::uint32_t rank, std::uint32_t size, int version = 22703) {
  NcclHello hello;
  hello.rank = LearnerRank(rank);
  hello.size = size;
  hello.version = version;
  hello.library = "/lib/" + std::to_string(rank) + "/libnccl.so.2";
  hello.id.internal[0] = static_cast<char>('a' + rank);
  return hello;
}

TEST(NcclHelloTest, TheIdOfRankZeroCounts) {
  const auto id = AgreeOnHellos({EncodeHello(Hello(0, 2)), EncodeHello(Hello(1, 2))});
  ASSERT_TRUE(id.ok()) << id.status().ToString();
  EXPECT_EQ(id->internal[0], 'a');
}

TEST(NcclHelloTest, AnotherVersionIsNamedWithItsFile) {
  const auto id = AgreeOnHellos(
      {EncodeHello(Hello(0, 3)), EncodeHello(Hello(1, 3)), EncodeHello(Hello(2, 3, 22809))});
  EXPECT_EQ(id.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(id.status().message(),
              HasSubstr("NCCL versions differ: rank 0 has 2.27.3 (/lib/0/libnccl.so.2), rank 2 has "
                        "2.28.9 (/lib/2/libnccl.so.2)"));
}

TEST(NcclHelloTest, AFailureComesBeforeVersions) {
  NcclHello broken = Hello(1, 2, 0);
  broken.failure = "GPU 7: no such device";
  const auto id = AgreeOnHellos({EncodeHello(Hello(0, 2)), EncodeHello(broken)});
  EXPECT_EQ(id.status().message(), "rank 1: GPU 7: no such device");
}

TEST(NcclHelloTest, AnotherProtocolIsNamed) {
  std::string other = EncodeHello(Hello(1, 2));
  other[7] = '0';
  EXPECT_THAT(AgreeOnHellos({EncodeHello(Hello(0, 2)), other}).status().message(),
              HasSubstr("rank 1 speaks another protocol"));
  EXPECT_THAT(AgreeOnHellos({EncodeHello(Hello(0, 2)), "short"}).status().message(),
              HasSubstr("rank 1 speaks another protocol"));
}

TEST(NcclHelloTest, RanksMustBeInTheirPlaces) {
  EXPECT_EQ(AgreeOnHellos({EncodeHello(Hello(1, 2)), EncodeHello(Hello(0, 2))}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(AgreeOnHellos({EncodeHello(Hello(0, 2))}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(AgreeOnHellos({}).status().code(), StatusCode::kInvalidArgument);
}

TEST(NcclHelloTest, LongTextsAreCutAndTheLengthIsAlwaysTheSame) {
  NcclHello hello = Hello(0, 1);
  hello.failure = std::string(5000, 'x');
  const std::string bytes = EncodeHello(hello);
  EXPECT_EQ(bytes.size(), EncodeHello(Hello(0, 1)).size());
  const auto id = AgreeOnHellos({bytes});
  EXPECT_THAT(id.status().message(), HasSubstr("rank 0: xxx"));
}

}  // namespace
}  // namespace thresher::comm
