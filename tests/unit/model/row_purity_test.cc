#include <gtest/gtest.h>

#include <limits>

#include "common/sync/worker_pool.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

constexpr int kLength = 150;  // three attention splits, ten pages, more than one row tile
constexpr int kPages = 64;

struct Case {
  std::string family;
  bool tied;
};

class RowPurity : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    config_ = SmallConfig(GetParam().family, GetParam().tied);
    model_ = PackedModel::Make(config_, LivelyWeights(config_, 7), 0, false);
    tokens_ = RandomTokens(1, kLength, config_.vocab);
    whole_ = Whole();
  }

  // The sequence alone, in one go, in the variant that is active.
  std::vector<float> Whole() const {
    KvCache cache(config_, kPages);
    const auto pages = PageTable(0, 1, kLength);
    RowBatch batch;
    Append(tokens_, 0, kLength, pages, batch);
    return Logits(*model_, HiddenOf(*model_, batch, cache));
  }

  // The sequence in pieces of `step` rows, each a call of its own.
  std::vector<float> InPieces(int step, const std::vector<std::int32_t>& pages) const {
    KvCache cache(config_, kPages);
    std::vector<float> logits;
    for (int begin = 0; begin < kLength; begin += step) {
      RowBatch batch;
      Append(tokens_, begin, std::min(kLength, begin + step), pages, batch);
      const auto piece = Logits(*model_, HiddenOf(*model_, batch, cache));
      logits.insert(logits.end(), piece.begin(), piece.end());
    }
    return logits;
  }

  std::vector<float> Rows(const std::vector<float>& logits, int begin, int count) const {
    const auto vocab = static_cast<std::size_t>(config_.vocab);
    const auto from = logits.begin() + static_cast<std::ptrdiff_t>(begin * vocab);
    return {from, from + static_cast<std::ptrdiff_t>(count * vocab)};
  }

  ModelConfig config_;
  std::shared_ptr<const PackedModel> model_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> whole_;
};

TEST_P(RowPurity, ChunkedPrefillEqualsOneGo) {
  ForEachVariant([&](auto variant) {
    for (int step : {7, 16, 64, 100}) {
      EXPECT_EQ(InPieces(step, PageTable(0, 1, kLength)), whole_)
          << kernels::CpuVariantName(variant) << " step " << step;
    }
  });
}

TEST_P(RowPurity, TokenByTokenDecodeEqualsOneGo) {
  ForEachVariant([&](auto variant) {
    EXPECT_EQ(InPieces(1, PageTable(0, 1, kLength)), whole_) << kernels::CpuVariantName(variant);
  });
}

TEST_P(RowPurity, AnotherPageTableChangesNoBit) {
  EXPECT_EQ(InPieces(kLength, PageTable(kPages - 1, -3, kLength)), whole_);
  EXPECT_EQ(InPieces(5, PageTable(11, 5, kLength)), whole_);
}

TEST_P(RowPurity, NeighboursChangeNoBit) {
  ForEachVariant([&](auto variant) {
    const auto left = RandomTokens(2, 61, config_.vocab);
    const auto right = RandomTokens(3, 90, config_.vocab);
    const auto left_pages = PageTable(0, 1, 61), pages = PageTable(20, 1, kLength),
               right_pages = PageTable(40, 1, 90);
    KvCache cache(config_, kPages);
    RowBatch batch;
    Append(left, 0, 61, left_pages, batch);
    Append(tokens_, 0, kLength, pages, batch);
    Append(right, 0, 90, right_pages, batch);
    EXPECT_EQ(Rows(Logits(*model_, HiddenOf(*model_, batch, cache)), 61, kLength), whole_)
        << kernels::CpuVariantName(variant);
  });
}

// Continuous batching: decode rows of one sequence between prefill rows of another.
TEST_P(RowPurity, DecodeBesidePrefillChangesNoBit) {
  const auto other = RandomTokens(4, 200, config_.vocab);
  const auto pages = PageTable(0, 1, kLength), other_pages = PageTable(20, 1, 200);
  KvCache cache(config_, kPages);
  std::vector<float> logits;
  for (int i = 0; i < kLength; ++i) {
    RowBatch batch;
    Append(other, i, i + 1, other_pages, batch);
    Append(tokens_, i, i + 1, pages, batch);
    const auto both = Logits(*model_, HiddenOf(*model_, batch, cache));
    const auto mine = Rows(both, 1, 1);
    logits.insert(logits.end(), mine.begin(), mine.end());
  }
  EXPECT_EQ(logits, whole_);
}

TEST_P(RowPurity, ATapeChangesNoBit) {
  KvCache cache(config_, kPages);
  const auto pages = PageTable(0, 1, kLength);
  RowBatch batch;
  Append(tokens_, 0, kLength, pages, batch);
  const TapePtr tape = NewTape();
  EXPECT_EQ(Logits(*model_, HiddenOf(*model_, batch, cache, tape.get())), whole_);
}

TEST_P(RowPurity, StaleCacheContentIsNeverRead) {
  KvCache cache(config_, kPages);
  const std::size_t floats = cache.page_stride_floats() * kPages;
  for (int layer = 0; layer < config_.layers; ++layer) {
    std::fill_n(cache.layer_keys(layer), floats, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(cache.layer_values(layer), floats, std::numeric_limits<float>::quiet_NaN());
  }
  const auto pages = PageTable(0, 1, kLength);
  RowBatch batch;
  Append(tokens_, 0, kLength, pages, batch);
  EXPECT_EQ(Logits(*model_, HiddenOf(*model_, batch, cache)), whole_);
}

TEST_P(RowPurity, AReusedWorkspaceChangesNoBit) {
  const WorkspacePtr workspace = NewWorkspace();
  KvCache cache(config_, kPages);
  const auto pages = PageTable(0, 1, kLength);
  for (int rows : {3, kLength, 40}) {
    RowBatch batch;
    Append(tokens_, 0, rows, pages, batch);
    std::vector<float> hidden(static_cast<std::size_t>(rows) * config_.width);
    Forward(*model_, batch, cache, *workspace, hidden);
    EXPECT_EQ(Logits(*model_, hidden), Rows(whole_, 0, rows));
  }
}

// One multiply-add is worth a thread: every operation is divided as finely as it can be.
TEST_P(RowPurity, ThreadsChangeNoBit) {
  for (int threads : {2, 3, 4}) {
    WorkerPool pool(threads);
    const WorkspacePtr workspace = NewWorkspace(&pool, 1);
    for (int step : {1, 7, kLength}) {
      KvCache cache(config_, kPages);
      const auto pages = PageTable(0, 1, kLength);
      std::vector<float> logits;
      for (int begin = 0; begin < kLength; begin += step) {
        RowBatch batch;
        Append(tokens_, begin, std::min(kLength, begin + step), pages, batch);
        std::vector<float> hidden(batch.token.size() * static_cast<std::size_t>(config_.width));
        Forward(*model_, batch, cache, *workspace, hidden);
        const auto piece = Logits(*model_, hidden);
        logits.insert(logits.end(), piece.begin(), piece.end());
      }
      EXPECT_EQ(logits, whole_) << threads << " threads, step " << step;
    }
  }
}

// The tests above can fail: what must change the bits does.
TEST_P(RowPurity, AnEarlierTokenAndAWeightDoChangeBits) {
  tokens_[3] = (tokens_[3] + 1) % config_.vocab;
  EXPECT_NE(Rows(Whole(), kLength - 1, 1), Rows(whole_, kLength - 1, 1));
  tokens_[3] = (tokens_[3] + config_.vocab - 1) % config_.vocab;
  auto flat = LivelyWeights(config_, 7);
  const auto list = ParameterList(config_);
  for (const auto& info : list) {
    if (info.name == "model.embed_tokens.weight") continue;  // a single row may be unused
    auto changed = flat;
    changed[info.offset] *= 1.01f;
    model_ = PackedModel::Make(config_, changed, 0, false);
    EXPECT_NE(Whole(), whole_) << info.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RowPurity,
                         ::testing::Values(Case{"llama", true}, Case{"llama3", false},
                                           Case{"qwen2", true}, Case{"qwen2", false},
                                           Case{"qwen3", true}, Case{"qwen3", false}),
                         [](const auto& info) {
                           return info.param.family + (info.param.tied ? "Tied" : "Untied");
                         });

}  // namespace
}  // namespace thresher::model
