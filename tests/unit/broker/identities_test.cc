#include "broker/identities.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

RunIdentity Ours() {
  RunIdentity identity;
  identity.backend = "cpu";
  identity.kernel_set = "cpu-fp32-v1";
  identity.build = "abc";
  identity.run_seed = 7;
  return identity;
}
RunIdentity OtherKernels() {
  RunIdentity identity = Ours();
  identity.kernel_set = "cpu-bf16dot-v1";
  return identity;
}

class IdentitiesTest : public ::testing::Test {
 protected:
  Identities Open(bool strict) {
    auto opened = Identities::Open(folder_.path(), strict);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return std::move(opened).value();
  }
  TemporaryFolder folder_;
};

TEST_F(IdentitiesTest, TheFirstFixesTheRunsAlsoAfterARestart) {
  for (bool strict : {true, true, false}) {
    Identities identities = Open(strict);
    EXPECT_EQ(*identities.Admit(Ours()), "");
    EXPECT_EQ(identities.RunHash(), Ours().Hash());
    EXPECT_TRUE(identities.Admitted(Ours().Hash()));
    EXPECT_FALSE(identities.Admitted(OtherKernels().Hash()));
    EXPECT_FALSE(identities.Admitted(Hash128{}));
  }
}

TEST_F(IdentitiesTest, NothingIsAdmittedBeforeTheFirst) {
  EXPECT_FALSE(Open(false).Admitted(Hash128{}));
  EXPECT_TRUE(Open(false).RunHash().IsZero());
}

TEST_F(IdentitiesTest, StrictRefusesOtherNumericsByName) {
  Identities identities = Open(true);
  EXPECT_EQ(*identities.Admit(Ours()), "");
  const std::string fault = *identities.Admit(OtherKernels());
  EXPECT_NE(fault.find("kernel_set: ours 'cpu-fp32-v1', theirs 'cpu-bf16dot-v1'"),
            std::string::npos)
      << fault;
  EXPECT_NE(fault.find("engine.strict"), std::string::npos) << fault;
  EXPECT_FALSE(identities.Admitted(OtherKernels().Hash()));
}

TEST_F(IdentitiesTest, OtherNumericsAreAdmittedWhereStrictIsFalseAlsoAfterARestart) {
  {
    Identities identities = Open(false);
    EXPECT_EQ(*identities.Admit(Ours()), "");
    EXPECT_EQ(*identities.Admit(OtherKernels()), "");
    EXPECT_EQ(*identities.Admit(OtherKernels()), "");
    EXPECT_EQ(identities.others().size(), 1u);
  }
  Identities again = Open(false);
  EXPECT_TRUE(again.Admitted(OtherKernels().Hash()));
  EXPECT_EQ(again.RunHash(), Ours().Hash());
}

TEST_F(IdentitiesTest, OtherDataOrCodeIsNeverAdmitted) {
  Identities identities = Open(false);
  EXPECT_EQ(*identities.Admit(Ours()), "");
  RunIdentity build = OtherKernels(), seed = Ours(), shape = Ours();
  build.build = "def";
  seed.run_seed = 8;
  shape.model_shape = H("another");
  for (const RunIdentity& other : {build, seed, shape}) {
    EXPECT_NE(*identities.Admit(other), "");
    EXPECT_FALSE(identities.Admitted(other.Hash()));
  }
  EXPECT_TRUE(identities.others().empty());
}

// One that makes them up fills neither memory nor disk.
TEST_F(IdentitiesTest, OfOtherNumericsSoManyAreAdmitted) {
  Identities identities = Open(false);
  EXPECT_EQ(*identities.Admit(Ours()), "");
  RunIdentity other = Ours();
  for (std::size_t i = 0; i < Identities::kMost + 10; ++i) {
    other.kernel_set = "made up " + std::to_string(i);
    EXPECT_EQ(identities.Admit(other)->empty(), i < Identities::kMost);
  }
  EXPECT_NE(identities.Admit(other)->find("64 other numerics were admitted already"),
            std::string::npos);
  EXPECT_EQ(identities.others().size(), Identities::kMost);
  EXPECT_EQ(*identities.Admit(Ours()), "");
}

TEST_F(IdentitiesTest, ADamagedFileIsNamed) {
  {
    Identities identities = Open(false);
    EXPECT_EQ(*identities.Admit(Ours()), "");
    EXPECT_EQ(*identities.Admit(OtherKernels()), "");
  }
  const auto file = folder_.path() / "identities" / (OtherKernels().Hash().ToString() + ".json");
  std::ofstream(file) << "{}";
  auto opened = Identities::Open(folder_.path(), false);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().ToString().find(file.string()), std::string::npos);
}

}  // namespace
}  // namespace thresher::broker
