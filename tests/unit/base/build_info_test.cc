#include "common/base/build_info.h"

#include <gtest/gtest.h>

#include <string>

namespace thresher {
namespace {

TEST(BuildInfoTest, EveryFieldIsFilledIn) {
  const BuildInfo& info = GetBuildInfo();
  for (const char* field : {info.version, info.revision, info.build_type, info.compiler}) {
    EXPECT_FALSE(std::string(field).empty());
    EXPECT_EQ(std::string(field).find('@'), std::string::npos) << field;
  }
}

TEST(BuildInfoTest, CompilerNamesItsVersion) {
  EXPECT_NE(std::string(GetBuildInfo().compiler).find(std::to_string(__GNUC__) + "."),
            std::string::npos);
}

}  // namespace
}  // namespace thresher
