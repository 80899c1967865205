#include "learner/gradient.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "common/base/random.h"

namespace thresher::learner {
namespace {

constexpr std::size_t kFloats = 37;

// Values whose sum depends on the order of addition.
std::vector<float> Gradient(std::size_t leaf) {
  RandomSequence random(9, TrajectoryId{Stream::kTrain, 0, leaf, 0}, RandomPurpose::kBootstrap);
  std::vector<float> out(kFloats);
  for (float& v : out) {
    v = std::ldexp(static_cast<float>(random.NextUniform() - 0.5),
                   static_cast<int>(random.Between(-12, 12)));
  }
  return out;
}

std::vector<float> PairwiseSum(std::size_t begin, std::size_t end) {
  if (end - begin == 1) return Gradient(begin);
  const std::size_t middle = (begin + end) / 2;
  std::vector<float> left = PairwiseSum(begin, middle);
  const std::vector<float> right = PairwiseSum(middle, end);
  for (std::size_t i = 0; i < kFloats; ++i) left[i] += right[i];
  return left;
}

std::vector<std::size_t> Order(std::size_t leaves, std::uint64_t seed) {
  std::vector<std::size_t> order(leaves);
  std::iota(order.begin(), order.end(), 0);
  RandomSequence random(seed, {}, RandomPurpose::kControl);
  for (std::size_t i = leaves; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

std::vector<float> Filled(BufferPool& pool, std::size_t leaf) {
  std::vector<float> buffer = pool.Take();
  const std::vector<float> values = Gradient(leaf);
  std::copy(values.begin(), values.end(), buffer.begin());
  return buffer;
}

TEST(BufferPool, HandsOutZeroedBuffersAgain) {
  BufferPool pool(5);
  std::vector<float> buffer = pool.Take();
  EXPECT_EQ(buffer, std::vector<float>(5, 0.0f));
  buffer.assign(5, 3.0f);
  const float* memory = buffer.data();
  pool.Give(std::move(buffer));
  std::vector<float> again = pool.Take();
  EXPECT_EQ(again.data(), memory);
  EXPECT_EQ(again, std::vector<float>(5, 0.0f));
  EXPECT_EQ(pool.Take(), std::vector<float>(5, 0.0f));
}

TEST(BufferPoolDeathTest, RefusesABufferOfAnotherSize) {
  BufferPool pool(5);
  EXPECT_DEATH(pool.Give(std::vector<float>(4)), "another size");
}

// Leaves on threads of their own, which become ready from the end on in steps of different sizes;
// what comes before is still written to.
TEST(GradientTree, PartsThatAreReadyAreSummedWhileTheRestIsWritten) {
  constexpr std::size_t kSummed = kFloats - 5;  // the rest is the leaf's own
  for (std::size_t leaves : {1u, 2u, 4u, 16u}) {
    const std::vector<float> expected = PairwiseSum(0, leaves);
    for (int round = 0; round < 20; ++round) {
      BufferPool pool(kFloats);
      std::size_t root_from = kSummed;
      std::vector<float> root(kSummed);
      GradientTree tree(leaves, pool, kSummed, [&](float* sum, std::size_t from) {
        EXPECT_LE(from, root_from);
        std::copy(sum + from, sum + root_from, root.begin() + static_cast<std::ptrdiff_t>(from));
        root_from = from;
      });
      {
        std::vector<std::jthread> threads;
        for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
          threads.emplace_back([&, leaf] {
            const std::vector<float> values = Gradient(leaf);
            const std::span<float> out = tree.Begin(leaf, pool.Take());
            std::copy(values.begin() + kSummed, values.end(), out.begin() + kSummed);
            for (std::size_t end = kSummed; end > 0;) {
              const std::size_t from = end - std::min(end, 1 + (leaf + end) % 7);
              for (std::size_t i = from; i < end; ++i) out[i] = values[i];
              tree.Ready(leaf, from);
              end = from;
            }
          });
        }
      }
      const std::vector<float> sum = tree.TakeRoot();
      EXPECT_TRUE(std::equal(root.begin(), root.end(), expected.begin()));
      EXPECT_TRUE(std::equal(root.begin(), root.end(), sum.begin()));
      EXPECT_EQ(root_from, 0u);
      EXPECT_TRUE(std::equal(sum.begin() + kSummed, sum.end(), Gradient(0).begin() + kSummed));
    }
  }
}

TEST(GradientTree, ArrivalOrderChangesNoBit) {
  for (std::size_t leaves : {1u, 2u, 4u, 8u, 32u}) {
    const std::vector<float> expected = PairwiseSum(0, leaves);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      BufferPool pool(kFloats);
      GradientTree tree(leaves, pool);
      for (std::size_t leaf : Order(leaves, seed)) tree.Add(leaf, Filled(pool, leaf));
      EXPECT_EQ(tree.TakeRoot(), expected) << leaves << " leaves, order " << seed;
    }
  }
}

TEST(GradientTree, TheSumReallyDependsOnTheOrder) {
  // Without this the test above could not fail.
  std::vector<float> chain = Gradient(0);
  for (std::size_t leaf = 1; leaf < 32; ++leaf) {
    const std::vector<float> next = Gradient(leaf);
    for (std::size_t i = 0; i < kFloats; ++i) chain[i] += next[i];
  }
  EXPECT_NE(chain, PairwiseSum(0, 32));
}

TEST(GradientTree, NumberOfThreadsChangesNoBit) {
  constexpr std::size_t kLeaves = 32;
  const std::vector<float> expected = PairwiseSum(0, kLeaves);
  for (std::size_t threads : {2u, 3u, 8u}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      BufferPool pool(kFloats);
      GradientTree tree(kLeaves, pool);
      const std::vector<std::size_t> order = Order(kLeaves, seed);
      std::vector<std::jthread> workers;
      for (std::size_t t = 0; t < threads; ++t) {
        workers.emplace_back([&, t] {
          for (std::size_t i = t; i < kLeaves; i += threads) {
            tree.Add(order[i], Filled(pool, order[i]));
          }
        });
      }
      workers.clear();
      EXPECT_EQ(tree.TakeRoot(), expected) << threads << " threads, order " << seed;
    }
  }
}

TEST(GradientTreeDeathTest, ALeafAddedTwiceIsABugAtOnce) {
  BufferPool pool(kFloats);
  GradientTree waiting(4, pool);
  waiting.Add(1, Gradient(1));
  EXPECT_DEATH(waiting.Add(1, Gradient(1)), "leaf 1 added twice");
  // Also when the first copy has been folded into its parent already.
  GradientTree folded(4, pool);
  folded.Add(0, Gradient(0));
  folded.Add(1, Gradient(1));
  EXPECT_DEATH(folded.Add(0, Gradient(0)), "leaf 0 added twice");
}

TEST(GradientTreeDeathTest, RefusesWrongShapes) {
  BufferPool pool(kFloats);
  EXPECT_DEATH(GradientTree(3, pool), "power of two");
  GradientTree tree(2, pool);
  EXPECT_DEATH(tree.Add(2, Gradient(0)), "out of range");
  tree.Add(0, Gradient(0));
  EXPECT_DEATH((void)tree.TakeRoot(), "not complete");
}

TEST(BlockedNorm, IsTheSameBitsOnAnyNumberOfThreads) {
  for (std::size_t count : {std::size_t{0}, std::size_t{1}, 3 * kNormBlock + 17}) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i)) / 3.0f;
    for (int threads : {1, 2, 4}) {
      WorkerPool pool(WorkerPoolOptions{.threads = threads});
      EXPECT_EQ(BlockedNorm(values, &pool), BlockedNorm(values)) << count << " " << threads;
    }
  }
}

TEST(BlockedNorm, AgreesWithLongDoubleWithinItsBound) {
  for (std::size_t count : {0u, 1u, 2u, 65535u, 65536u, 65537u, 3u * 65536u + 5u}) {
    std::vector<float> values(count);
    RandomSequence random(4, {}, RandomPurpose::kBootstrap);
    long double sum = 0;
    for (float& v : values) {
      v = std::ldexp(static_cast<float>(random.NextUniform() - 0.5),
                     static_cast<int>(random.Between(-20, 20)));
      sum += static_cast<long double>(v) * v;
    }
    const double expected = static_cast<double>(std::sqrt(sum));
    // A chain of n additions of positive doubles: relative error below n 2^-53, halved by the root.
    const double bound =
        static_cast<double>(std::min<std::size_t>(count, kNormBlock) + 8) * 0x1p-54;
    EXPECT_NEAR(BlockedNorm(values), expected, expected * bound) << count;
  }
}

TEST(BlockedNorm, IsTheFixedTreeOverTheFixedBlocks) {
  // Five blocks: ((0 + 1) + (2 + 3)) + 4, each a chain.
  constexpr std::size_t kCount = 4 * kNormBlock + 17;
  std::vector<float> values(kCount);
  RandomSequence random(5, {}, RandomPurpose::kBootstrap);
  for (float& v : values) v = static_cast<float>(random.NextUniform() - 0.5);
  std::vector<double> block(5, 0.0);
  for (std::size_t i = 0; i < kCount; ++i) {
    block[i / kNormBlock] += static_cast<double>(values[i]) * values[i];
  }
  EXPECT_EQ(BlockedNorm(values),
            std::sqrt(((block[0] + block[1]) + (block[2] + block[3])) + block[4]));
}

TEST(BlockedNorm, ShowsWhatIsNotFinite) {
  EXPECT_FALSE(std::isfinite(BlockedNorm(std::vector<float>{1.0f, INFINITY})));
  EXPECT_FALSE(std::isfinite(BlockedNorm(std::vector<float>{NAN, 1.0f})));
  // Squares beyond the range of a float are not yet infinite.
  EXPECT_DOUBLE_EQ(BlockedNorm(std::vector<float>{3e30f, 4e30f}),
                   std::hypot(double{3e30f}, double{4e30f}));
}

}  // namespace
}  // namespace thresher::learner
