#include "actor/weight_receiver.h"

#include <gtest/gtest.h>

#include <span>

#include "common/base/hash.h"
#include "common/base/random.h"

namespace thresher::actor {
namespace {

using namespace std::chrono_literals;
using Indices = std::vector<std::uint32_t>;

struct Published {
  std::string blob;
  wire::WeightsManifest manifest;

  Published(std::uint32_t step, std::size_t bytes, std::uint32_t chunk_bytes) {
    RandomSequence random(step, {}, RandomPurpose::kBootstrap);
    for (std::size_t i = 0; i < bytes; ++i) blob.push_back(static_cast<char>(random.NextU32()));
    manifest.version = {0, step};
    manifest.bytes = bytes;
    manifest.chunk_bytes = chunk_bytes;
    manifest.hash = HashBytes128(std::as_bytes(std::span(blob)));
    for (std::size_t begin = 0; begin < bytes; begin += chunk_bytes) {
      const std::string part = blob.substr(begin, chunk_bytes);
      manifest.chunk_hashes.push_back(HashBytes64(std::as_bytes(std::span(part))));
    }
  }
  wire::Chunk Chunk(std::uint32_t index) const {
    return {manifest.version, index,
            blob.substr(std::size_t{index} * manifest.chunk_bytes, manifest.chunk_bytes)};
  }
};

class WeightReceiverTest : public ::testing::Test {
 protected:
  // The chunks asked for since the last call, all of the version being pulled.
  Indices Asked() {
    Indices out;
    for (const wire::ChunkGet& get : std::exchange(posted_, {})) {
      EXPECT_EQ(get.version, receiver_.manifest()->version);
      out.push_back(get.index);
    }
    return out;
  }
  TimePoint Now() const { return clock_.Now(); }
  void Begin(const Published& published) {
    ASSERT_TRUE(receiver_.Begin(published.manifest, Now()).ok());
  }
  void Give(const Published& published, std::uint32_t index) {
    receiver_.OnChunk(published.Chunk(index), Now());
  }
  // Answers every request until nothing more is asked.
  void GiveAll(const Published& published) {
    for (Indices asked = Asked(); !asked.empty(); asked = Asked()) {
      for (std::uint32_t index : asked) Give(published, index);
    }
  }

  ManualClock clock_;
  std::vector<wire::ChunkGet> posted_;
  WeightReceiver receiver_{
      [this](const wire::Message& m) { posted_.push_back(std::get<wire::ChunkGet>(m)); }, 3, 2s};
};

TEST_F(WeightReceiverTest, PullsThroughItsWindow) {
  const Published v1(1, 950, 100);  // the last chunk is short
  Begin(v1);
  EXPECT_TRUE(receiver_.busy());
  EXPECT_EQ(Asked(), (Indices{0, 1, 2}));
  Give(v1, 1);
  EXPECT_EQ(Asked(), (Indices{3}));
  Give(v1, 0);
  Give(v1, 3);
  EXPECT_EQ(Asked(), (Indices{4, 5}));
  EXPECT_FALSE(receiver_.TakeComplete(Now()).has_value());
  for (std::uint32_t i : {5u, 2u, 4u}) Give(v1, i);
  GiveAll(v1);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
  EXPECT_FALSE(receiver_.busy());
  EXPECT_FALSE(receiver_.TakeComplete(Now()).has_value());
  EXPECT_EQ(receiver_.damaged_chunks(), 0u);
}

TEST_F(WeightReceiverTest, TheSameManifestAgainChangesNothing) {
  const Published v1(1, 500, 100);
  Begin(v1);
  (void)Asked();
  Give(v1, 0);
  (void)Asked();
  Begin(v1);
  EXPECT_TRUE(Asked().empty());
  for (std::uint32_t i : {1u, 2u, 3u, 4u}) Give(v1, i);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, ALostAnswerIsAskedForAgain) {
  const Published v1(1, 500, 100);
  Begin(v1);
  EXPECT_EQ(Asked(), (Indices{0, 1, 2}));
  Give(v1, 1);
  EXPECT_EQ(Asked(), (Indices{3}));
  clock_.Advance(1999ms);
  receiver_.Tick(Now());
  EXPECT_TRUE(Asked().empty());
  clock_.Advance(1ms);
  receiver_.Tick(Now());
  EXPECT_EQ(Asked(), (Indices{0, 2, 3}));
  receiver_.Tick(Now());
  EXPECT_TRUE(Asked().empty());  // not twice at once
  for (std::uint32_t i : {0u, 2u, 3u}) Give(v1, i);
  GiveAll(v1);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, TheFirstAndTheLateAnswerAreBothHarmless) {
  const Published v1(1, 500, 100);
  Begin(v1);
  clock_.Advance(3s);
  receiver_.Tick(Now());
  (void)Asked();
  Give(v1, 0);
  Give(v1, 0);
  Give(v1, 0);
  EXPECT_EQ(Asked(), (Indices{3}));  // the window did not grow by the duplicates
  Give(v1, 4);                       // never asked for
  for (std::uint32_t i : {1u, 2u, 3u}) Give(v1, i);
  EXPECT_FALSE(receiver_.TakeComplete(Now()).has_value());
  GiveAll(v1);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, ADamagedChunkIsAskedForAgain) {
  const Published v1(1, 250, 100);
  Begin(v1);
  (void)Asked();
  wire::Chunk flipped = v1.Chunk(1);
  std::string bytes = flipped.bytes.ToString();
  bytes[7] ^= 1;
  flipped.bytes = bytes;
  receiver_.OnChunk(flipped, Now());
  EXPECT_EQ(Asked(), (Indices{1}));
  wire::Chunk cut = v1.Chunk(1);
  cut.bytes = cut.bytes.Slice(0, cut.bytes.size() - 1);
  receiver_.OnChunk(cut, Now());
  EXPECT_EQ(Asked(), (Indices{1}));
  wire::Chunk longer = v1.Chunk(2);
  longer.bytes = longer.bytes.ToString() + std::string(1000, 'x');
  receiver_.OnChunk(longer, Now());
  EXPECT_EQ(Asked(), (Indices{2}));
  EXPECT_EQ(receiver_.damaged_chunks(), 3u);
  for (std::uint32_t i : {0u, 1u, 2u}) Give(v1, i);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, ChunksOfAnotherVersionOrBeyondTheEndAreIgnored) {
  const Published v1(1, 250, 100), v2(2, 250, 100);
  receiver_.OnChunk(v1.Chunk(0), Now());  // nothing is being pulled
  Begin(v1);
  (void)Asked();
  Give(v2, 0);
  receiver_.OnChunk({v1.manifest.version, 3, "?"}, Now());
  receiver_.OnChunk({v1.manifest.version, UINT32_MAX, "?"}, Now());
  EXPECT_TRUE(Asked().empty());
  EXPECT_EQ(receiver_.damaged_chunks(), 0u);
  for (std::uint32_t i : {0u, 1u, 2u}) Give(v1, i);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, ANewerManifestReplacesTheOneBeingPulled) {
  const Published v1(1, 500, 100), v2(2, 320, 50);
  Begin(v1);
  Give(v1, 0);
  posted_.clear();
  Begin(v2);
  EXPECT_EQ(Asked(), (Indices{0, 1, 2}));
  Give(v1, 1);
  for (std::uint32_t i : {0u, 1u, 2u}) Give(v2, i);
  GiveAll(v2);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v2.blob);
}

TEST_F(WeightReceiverTest, AWholeThatDoesNotMatchIsPulledAnew) {
  Published v1(1, 250, 100);
  const Hash128 right = v1.manifest.hash;
  v1.manifest.hash.low ^= 1;
  Begin(v1);
  GiveAll(v1);
  EXPECT_FALSE(receiver_.TakeComplete(Now()).has_value());
  EXPECT_TRUE(receiver_.busy());
  EXPECT_EQ(Asked(), (Indices{0, 1, 2}));
  EXPECT_EQ(receiver_.damaged_chunks(), 1u);
  v1.manifest.hash = right;  // announced again, correctly
  Begin(v1);
  GiveAll(v1);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, AReconnectAsksForEverythingOutstanding) {
  const Published v1(1, 500, 100);
  receiver_.Restart(Now());  // nothing is being pulled
  EXPECT_TRUE(posted_.empty());
  Begin(v1);
  (void)Asked();
  receiver_.Restart(Now());
  EXPECT_EQ(Asked(), (Indices{0, 1, 2}));
  for (std::uint32_t i : {0u, 1u, 2u}) Give(v1, i);
  GiveAll(v1);
  EXPECT_EQ(receiver_.TakeComplete(Now()), v1.blob);
}

TEST_F(WeightReceiverTest, AVersionThatIsGoneIsAskedForNoMore) {
  const Published v1(1, 250, 100);
  Begin(v1);
  (void)Asked();
  receiver_.Abandon({0, 2});
  EXPECT_TRUE(receiver_.busy());
  receiver_.Abandon({0, 1});
  EXPECT_FALSE(receiver_.busy());
  receiver_.Tick(Now() + std::chrono::hours(1));
  Give(v1, 0);
  EXPECT_TRUE(posted_.empty());
  EXPECT_EQ(receiver_.TakeComplete(Now()), std::nullopt);
}

TEST_F(WeightReceiverTest, AManifestThatDoesNotAddUpIsRefused) {
  const Published good(1, 250, 100);
  std::vector<wire::WeightsManifest> bad(5, good.manifest);
  bad[0].chunk_bytes = 0;
  bad[1].chunk_hashes.push_back(7);  // a chunk beyond the end of the blob
  bad[2].chunk_hashes.pop_back();
  bad[3].bytes = 0;
  bad[4].bytes = std::uint64_t{1} << 60;
  for (const wire::WeightsManifest& manifest : bad) {
    EXPECT_EQ(receiver_.Begin(manifest, Now()).code(), StatusCode::kInvalidArgument);
    EXPECT_FALSE(receiver_.busy());
  }
  // What was being pulled goes on.
  Begin(good);
  (void)Asked();
  bad[1].version.step = 2;
  EXPECT_FALSE(receiver_.Begin(bad[1], Now()).ok());
  for (std::uint32_t i : {0u, 1u, 2u}) Give(good, i);
  EXPECT_EQ(receiver_.TakeComplete(Now()), good.blob);
}

}  // namespace
}  // namespace thresher::actor
