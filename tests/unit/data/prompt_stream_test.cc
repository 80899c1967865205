#include "common/data/prompt_stream.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace thresher {
namespace {

TEST(Permutation, IsABijectionOfAnySize) {
  for (std::uint64_t rows : {1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1000}) {
    Permutation permutation(7, Stream::kTrain, 0, rows);
    for (std::uint64_t epoch : {0, 1, 5}) {
      std::set<std::uint64_t> seen;
      for (std::uint64_t i = 0; i < rows; ++i) {
        const std::uint64_t row = permutation.RowAt(epoch, i);
        EXPECT_LT(row, rows);
        EXPECT_TRUE(seen.insert(row).second) << rows << ": row " << row << " twice";
        EXPECT_EQ(permutation.IndexOf(epoch, row), i);
      }
    }
  }
}

TEST(Permutation, ReachesTheEndsOfTheLargestDataSet) {
  Permutation permutation(7, Stream::kTrain, 0, Permutation::kMostRows);
  for (std::uint64_t i : {std::uint64_t{0}, std::uint64_t{12345}, Permutation::kMostRows - 1}) {
    const std::uint64_t row = permutation.RowAt(3, i);
    EXPECT_LT(row, Permutation::kMostRows);
    EXPECT_EQ(permutation.IndexOf(3, row), i);
  }
}

TEST(Permutation, SeedEpochStreamAndSourceEachGiveAnotherOrder) {
  auto order = [](std::uint64_t seed, Stream stream, std::uint16_t source, std::uint64_t epoch) {
    Permutation permutation(seed, stream, source, 50);
    std::vector<std::uint64_t> rows;
    for (std::uint64_t i = 0; i < 50; ++i) rows.push_back(permutation.RowAt(epoch, i));
    return rows;
  };
  const auto base = order(1, Stream::kTrain, 0, 0);
  EXPECT_EQ(base, order(1, Stream::kTrain, 0, 0));
  EXPECT_NE(base, order(2, Stream::kTrain, 0, 0));
  EXPECT_NE(base, order(1, Stream::kEval, 0, 0));
  EXPECT_NE(base, order(1, Stream::kTrain, 1, 0));
  EXPECT_NE(base, order(1, Stream::kTrain, 0, 1));
}

// Every row is equally likely at every index: chi-square over epochs, 9 degrees of freedom each.
TEST(Permutation, PutsNoRowAnywhereMoreOften) {
  constexpr std::uint64_t kRows = 10, kEpochs = 5000;
  Permutation permutation(11, Stream::kTrain, 0, kRows);
  double counts[kRows][kRows] = {};
  for (std::uint64_t epoch = 0; epoch < kEpochs; ++epoch) {
    for (std::uint64_t i = 0; i < kRows; ++i) ++counts[i][permutation.RowAt(epoch, i)];
  }
  const double expected = double(kEpochs) / kRows;
  for (const auto& row : counts) {
    double chi = 0;
    for (double count : row) chi += (count - expected) * (count - expected) / expected;
    EXPECT_LT(chi, 33.7);  // beyond it one of 10,000
  }
}

TEST(Interleave, KeepsEverySourceWithinOneItemOfItsShare) {
  std::mt19937 random(5);
  for (int run = 0; run < 300; ++run) {
    std::vector<std::uint32_t> weights(1 + random() % 8);
    for (std::uint32_t& weight : weights) weight = 1 + random() % (run % 2 == 0 ? 5 : 200);
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    Interleave interleave(weights);
    std::vector<std::uint64_t> had(weights.size());
    const auto turns = static_cast<std::uint64_t>(2.5 * total) + 10;
    for (std::uint64_t n = 0; n < turns; ++n) {
      const Interleave::Turn turn = interleave.At(n);
      ASSERT_EQ(turn.ordinal, had[turn.source]++);
      for (std::size_t i = 0; i < weights.size(); ++i) {
        ASSERT_LT(std::abs(double(had[i]) - double(n + 1) * weights[i] / total), 1.0)
            << "run " << run << " after " << n + 1 << ", source " << i;
      }
    }
  }
}

TEST(Interleave, KnowsAnyTurnAlone) {
  Interleave interleave({4, 2});
  EXPECT_EQ(interleave.At(3'000'000'000'000).ordinal, 2'000'000'000'000u);
  EXPECT_EQ(Interleave({1'000'000, 500'000}).At(17), interleave.At(17));
}

TEST(PromptStream, EverySourcePassesThroughItsRowsOnceAnEpoch) {
  PromptStream stream(3, Stream::kTrain, {{7, 2}, {5, 1}});
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::set<std::uint64_t>> seen;
  for (std::uint64_t item = 0; item < 3 * 35; ++item) {
    const PromptStream::Prompt prompt = stream.At(item);
    EXPECT_TRUE(seen[std::pair(prompt.source, prompt.epoch)].insert(prompt.row).second);
  }
  for (std::uint64_t epoch = 0; epoch < 10; ++epoch) {
    EXPECT_EQ(seen[std::pair(0u, epoch)].size(), 7u);
  }
  for (std::uint64_t epoch = 0; epoch < 7; ++epoch) {
    EXPECT_EQ(seen[std::pair(1u, epoch)].size(), 5u);
  }
}

}  // namespace
}  // namespace thresher
