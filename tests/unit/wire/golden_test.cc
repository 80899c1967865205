// Bytes written by an earlier build still mean the same, and today's build writes the same bytes.
// A difference here is a change of the format: old runs, journals and peers can no longer be read.
// Only after a deliberate change: THRESHER_UPDATE_GOLDEN=1 unit_wire --gtest_filter='Golden.*'.

#include <gtest/gtest.h>

#include <cstdlib>

#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/wire/frame.h"
#include "common/wire/records.h"
#include "tests/support/source_folder.h"

namespace thresher::wire {
namespace {

std::string Golden(const std::string& name, const std::string& encoded) {
  const auto path = SourceFolder() / "tests/unit/wire/golden" / name;
  if (std::getenv("THRESHER_UPDATE_GOLDEN") != nullptr) {
    EXPECT_TRUE(WriteFileAtomic(path, encoded).ok());
  }
  Result<std::string> stored = ReadFile(path);
  EXPECT_TRUE(stored.ok()) << stored.status().ToString();
  return stored.ok() ? *stored : "";
}

Trajectory SampleTrajectory() {
  Trajectory t;
  t.id = {Stream::kBranch, 3, 123456789, 7};
  t.group_size = 16;
  t.pinned = {1, 40};
  t.prompt_hash = {0x1111, 0x2222};
  t.instance_hash = {0x3333, 0x4444};
  t.task = "countdown";
  t.tokens = {5, 6, 7, 8, 9, 10, -1};
  t.segments = {{0, 2, Role::kPrompt, false},
                {2, 5, Role::kPolicy, true},
                {5, 6, Role::kEnvironment, false},
                {6, 7, Role::kPolicy, true}};
  t.logprobs = {-0.5f, -1.25f, -0.0f, -3.0e-7f};
  t.kept_mass_logprobs = {0, -0.125f, 0, 0};
  t.versions = {{2, 4, {1, 40}}, {4, 7, {1, 41}}};
  t.kv_history = {{0, 4, {1, 40}, false}, {0, 4, {1, 41}, true}, {4, 6, {1, 41}, false}};
  t.sampling = {0.75f, 50, 0.95f, 0.01f, 1.5f, 64, {{3, -1.5f}, {9, 2.0f}}, {5, 6, 7}};
  t.finish = FinishReason::kLength;
  t.outcome = {OutcomeKind::kUnparsable, 0,   -0.5, "not_parsed", {{"format", 0.25}},
               {{3, "step", 1.5}},       true};
  t.text = std::string("1+2\0\xff", 5);
  t.has_parent = true;
  t.parent = {Stream::kTrain, 3, 9, 1};
  t.parent_position = 2;
  t.episode = 77;
  t.episode_index = 1;
  t.timings = {1.5f, 2.5f, 3.5f, 4.5f};
  t.actor = ActorId(2);
  t.incarnation = Incarnation(0x0123456789abcdef);
  t.run_identity = {0x5555, 0x6666};
  return t;
}

TEST(Golden, Trajectory) {
  std::string stored = Golden("trajectory.bin", EncodeTrajectory(SampleTrajectory()));
  EXPECT_EQ(EncodeTrajectory(SampleTrajectory()), stored);
  Result<thresher::Trajectory> decoded = DecodeTrajectory(stored);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_TRUE(*decoded == SampleTrajectory());
}

// Records written before SamplingParams had its lists.
TEST(Golden, TrajectoryOfAnOlderSchema) {
  Result<std::string> stored =
      ReadFile(SourceFolder() / "tests/unit/wire/golden/trajectory_without_lists.bin");
  ASSERT_TRUE(stored.ok()) << stored.status().ToString();
  Result<thresher::Trajectory> decoded = DecodeTrajectory(*stored);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  Trajectory expected = SampleTrajectory();
  expected.sampling.logit_bias.clear();
  expected.sampling.allowed_tokens.clear();
  EXPECT_TRUE(*decoded == expected);
  EXPECT_EQ(decoded->ContentHash(), expected.ContentHash());
}

TEST(Golden, Frame) {
  Envelope envelope{{0xaaaa, 0xbbbb}, Incarnation(42), 7};
  Upload upload{3, {FencingToken(10), FencingToken(11)}, {"first record", "second"}};
  std::string encoded = EncodeFrame(envelope, upload).value();
  std::string stored = Golden("upload_frame.bin", encoded);
  EXPECT_EQ(encoded, stored);
  Result<DecodedFrame> decoded = DecodeFrame(AsBytes(stored));
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(decoded->envelope, envelope);
  EXPECT_TRUE(decoded->message == Message(upload));
}

TEST(Golden, JournalRecord) {
  SampleAccepted accepted{
      {Stream::kTrain, 0, 12, 3}, {1, 2}, 4, Incarnation(5), {0, 6}, 0.5, 7, {8, 9},
      OutcomeKind::kTimedOut,     true};
  std::string stored = Golden("sample_accepted.bin", EncodeJournalRecord(accepted));
  EXPECT_EQ(EncodeJournalRecord(accepted), stored);
  Result<wire::JournalRecord> decoded = DecodeJournalRecord(stored);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_TRUE(*decoded == wire::JournalRecord(accepted));
}

TEST(Golden, Digests) {
  std::vector<BatchEntry> entries = {{{Stream::kTrain, 0, 1, 2}, {3, 4}},
                                     {{Stream::kEval, 5, 6, 7}, {8, 9}}};
  EXPECT_EQ(HashBatch(entries).ToString(), "723f0d16b0b8aa6da3cfa081a15127b2");
  EXPECT_EQ(HashChain({1, 2}, {3, 4}).ToString(), "e420db4fa15b19201ce6fe00ac20369d");
}

}  // namespace
}  // namespace thresher::wire
