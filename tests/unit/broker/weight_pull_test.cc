#include "broker/weight_pull.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "broker/weight_store.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

std::span<const std::byte> Bytes(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

struct Source {
  std::string blob;
  wire::WeightsManifest manifest;

  Source(std::size_t bytes, std::uint32_t chunk) {
    std::mt19937 random(3);
    for (std::size_t i = 0; i < bytes; ++i) blob.push_back(static_cast<char>(random()));
    manifest.version = V(4);
    manifest.bytes = bytes;
    manifest.chunk_bytes = chunk;
    manifest.hash = HashBytes128(Bytes(blob));
    for (std::size_t at = 0; at < bytes; at += chunk) {
      manifest.chunk_hashes.push_back(HashBytes64(Bytes(blob.substr(at, chunk))));
    }
  }
  wire::Chunk Chunk(std::uint32_t index) const {
    return {manifest.version, index,
            blob.substr(std::size_t{index} * manifest.chunk_bytes, manifest.chunk_bytes)};
  }
};

TEST(WeightPull, PullsWithAWindowOverALossyLink) {
  Source source(1050, 100);
  WeightPull pull(source.manifest, 3, milliseconds(50));
  std::mt19937 random(1);
  TimePoint now{};
  for (int round = 0; round < 500 && !pull.complete(); ++round) {
    std::vector<wire::ChunkGet> wanted = pull.Wanted(now);
    EXPECT_LE(wanted.size(), 3u);
    std::shuffle(wanted.begin(), wanted.end(), random);
    for (const auto& get : wanted) {
      wire::Chunk chunk = source.Chunk(get.index);
      unsigned luck = random() % 4;
      if (luck == 0) continue;  // lost
      if (luck == 1) {
        std::string damaged = chunk.bytes.ToString();
        damaged[0] ^= 1;
        chunk.bytes = std::move(damaged);
      }
      EXPECT_EQ(pull.Take(chunk).ok(), luck != 1);
      EXPECT_TRUE(luck != 3 || pull.Take(chunk).ok()) << "a second copy is ignored";
    }
    now += milliseconds(20);
  }
  ASSERT_TRUE(pull.complete());
  EXPECT_EQ(pull.Blob().value(), source.blob);
}

TEST(WeightPull, RefusesWhatWasNotAskedForAndAWrongWhole) {
  Source source(250, 100);
  source.manifest.hash = H("other");
  WeightPull pull(source.manifest, 8, milliseconds(50));
  EXPECT_EQ(pull.Take(source.Chunk(0)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pull.Wanted({}).size(), 3u);
  wire::Chunk other = source.Chunk(0);
  other.version = V(5);
  EXPECT_EQ(pull.Take(other).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pull.Take({V(4), 3, "x"}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pull.Take({V(4), 2, "x"}).code(), StatusCode::kInvalidArgument);
  for (std::uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(pull.Take(source.Chunk(i)).ok());
  EXPECT_EQ(pull.Blob().status().code(), StatusCode::kDataLoss);
}

// A terabyte that nobody sends.
TEST(WeightPull, AManifestAloneTakesNoMemory) {
  wire::WeightsManifest manifest;
  manifest.version = V(1);
  manifest.bytes = std::uint64_t{1} << 40;
  manifest.chunk_bytes = 1u << 26;
  manifest.chunk_hashes.resize(1u << 14);
  ASSERT_TRUE(CheckManifest(manifest, 1u << 27).ok());
  WeightPull pull(manifest, 4, milliseconds(50));
  EXPECT_EQ(pull.Wanted({}).size(), 4u);
  EXPECT_FALSE(pull.complete());
}

TEST(WeightPull, ManifestsThatCannotBePulledAreRefused) {
  Source source(250, 100);
  EXPECT_TRUE(CheckManifest(source.manifest, 8192).ok());
  wire::WeightsManifest m = source.manifest;
  m.chunk_hashes.pop_back();
  EXPECT_FALSE(CheckManifest(m, 8192).ok());
  m = source.manifest;
  m.chunk_bytes = 0;
  EXPECT_FALSE(CheckManifest(m, 8192).ok());
  m = source.manifest;
  m.bytes = 0;
  EXPECT_FALSE(CheckManifest(m, 8192).ok());
  EXPECT_FALSE(CheckManifest(source.manifest, 1100).ok());
  m.bytes = UINT64_MAX;
  EXPECT_FALSE(CheckManifest(m, 8192).ok());
}

TEST(WeightStore, KeepsTheNewestAndTheNeeded) {
  TemporaryFolder folder;
  Config config = TinyConfig();
  RunState state{Plan(config)};
  WeightStore store(folder.path(), 64, 2);
  ASSERT_TRUE(store.Open(state).ok());
  for (std::uint32_t step = 0; step < 6; ++step) {
    std::string blob = "weights of step " + std::to_string(step);
    ASSERT_TRUE(store.Write(V(step), blob).ok());
    ASSERT_TRUE(
        state.Apply(wire::VersionPublished{V(step), HashBytes128(Bytes(blob)), blob.size()}).ok());
  }
  const auto old = store.Old(state, {V(1)});
  EXPECT_EQ(old, (std::vector<PolicyVersion>{V(0), V(2), V(3)}));
  EXPECT_EQ(store.Manifest(state, V(0))->version, V(0));
  store.Delete(old);
  EXPECT_EQ(store.Manifest(state, V(0)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store.ReadChunk(state, V(1), 0)->bytes, "weights of step 1");
  EXPECT_EQ(store.ReadChunk(state, V(1), 1).status().code(), StatusCode::kOutOfRange);
  WeightStore again(folder.path(), 64, 2);
  EXPECT_TRUE(again.Open(state).ok());
  std::filesystem::resize_file(store.FileOf(V(5)), 3);
  EXPECT_EQ(WeightStore(folder.path(), 64, 2).Open(state).code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace thresher::broker
