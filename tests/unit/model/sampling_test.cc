// Sample with per-row parameters: every row is drawn as if it stood alone, whatever its neighbours
// ask for. What the filters mean is tested in tests/unit/kernels/head_filter_test.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/sync/worker_pool.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

constexpr int kRows = 230;  // more than one pass over the head, more than may keep their logits

class Sampling : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    config_ = SmallConfig("qwen2", false);
    config_.vocab = GetParam();
    valid_ = config_.vocab - 5;
    model_ = PackedModel::Make(config_, LivelyWeights(config_, 3), valid_, false);
    const auto tokens = RandomTokens(5, kRows, valid_);
    const auto pages = PageTable(0, 1, kRows);
    KvCache cache(config_, 16);
    RowBatch batch;
    Append(tokens, 0, kRows, pages, batch);
    hidden_ = HiddenOf(*model_, batch, cache);
    mask_.resize(static_cast<std::size_t>(config_.vocab + 63) / 64, 0x5555555555555555);
  }

  // Rows of every kind; a third of them without filters.
  std::vector<RowSampling> Mixed() const {
    TrajectoryId id;
    const RandomStream random(11, id, RandomPurpose::kSample);
    std::vector<RowSampling> rows(kRows);
    for (std::uint32_t t = 0; t < kRows; ++t) {
      RowSampling& row = rows[t];
      row.uniform = random.Uniform(t);
      row.temperature = t % 11 == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(t % 7);
      if (t % 3 == 0) continue;
      if (t % 2 == 0) row.top_k = 1 + t % 13;
      if (t % 5 == 0) row.top_p = 0.7f;
      if (t % 7 == 0) row.min_p = 0.02f;
      if (t % 4 == 0) {
        row.repetition_penalty = 1.3f;
        row.seen = kSeen;
      }
      if (t % 8 == 1) {
        row.bias_ids = kBiasIds;
        row.bias_values = kBiasValues;
      }
      if (t % 10 == 1) row.allowed = mask_;
      row.top_n = static_cast<std::int32_t>(t % 6);
    }
    return rows;
  }
  std::span<const float> HiddenRow(std::size_t t) const {
    const auto width = static_cast<std::size_t>(config_.width);
    return std::span(hidden_).subspan(t * width, width);
  }

  static constexpr std::int32_t kSeen[] = {1, 2, 9, 17};
  static constexpr std::int32_t kBiasIds[] = {0, 3, 8};
  static constexpr float kBiasValues[] = {2.0f, -3.5f, 1.0f};
  ModelConfig config_;
  std::int32_t valid_ = 0;
  std::shared_ptr<const PackedModel> model_;
  std::vector<float> hidden_;
  std::vector<std::uint64_t> mask_;
  WorkspacePtr workspace_ = NewWorkspace();
};

TEST_P(Sampling, NeighboursAndTheirFiltersChangeNoBit) {
  const std::vector<RowSampling> rows = Mixed();
  const std::vector<RowSample> together = Sample(*model_, hidden_, rows, *workspace_);
  ASSERT_EQ(together.size(), rows.size());
  for (std::size_t t = 0; t < rows.size(); ++t) {
    const auto alone = Sample(*model_, HiddenRow(t), {&rows[t], 1}, *workspace_);
    EXPECT_EQ(alone[0].token, together[t].token) << t;
    EXPECT_EQ(alone[0].logprob, together[t].logprob) << t;
    EXPECT_EQ(alone[0].kept_mass_logprob, together[t].kept_mass_logprob) << t;
    EXPECT_EQ(alone[0].top, together[t].top) << t;
    EXPECT_EQ(together[t].top.size(), static_cast<std::size_t>(rows[t].top_n));
  }
}

TEST_P(Sampling, ThreadsChangeNoBit) {
  const std::vector<RowSampling> rows = Mixed();
  const std::vector<RowSample> expected = Sample(*model_, hidden_, rows, *workspace_);
  const auto targets = RandomTokens(6, kRows, valid_);
  const std::vector<float> temperatures(kRows, 0.7f);
  const auto scored = LogProb(*model_, hidden_, targets, temperatures, *workspace_);
  for (int threads : {2, 4}) {
    WorkerPool pool(threads);
    const WorkspacePtr divided = NewWorkspace(&pool, 1);  // as finely as can be
    const std::vector<RowSample> samples = Sample(*model_, hidden_, rows, *divided);
    for (std::size_t t = 0; t < rows.size(); ++t) {
      EXPECT_EQ(samples[t].token, expected[t].token) << t;
      EXPECT_EQ(samples[t].logprob, expected[t].logprob) << t;
      EXPECT_EQ(samples[t].kept_mass_logprob, expected[t].kept_mass_logprob) << t;
      EXPECT_EQ(samples[t].top, expected[t].top) << t;
    }
    const auto again = LogProb(*model_, hidden_, targets, temperatures, *divided);
    EXPECT_EQ(again.logprob, scored.logprob);
    EXPECT_EQ(again.lse, scored.lse);
    EXPECT_EQ(again.entropy, scored.entropy);
  }
}

TEST_P(Sampling, LogprobsAreLogProbsWhateverTheFilters) {
  const std::vector<RowSampling> rows = Mixed();
  const std::vector<RowSample> samples = Sample(*model_, hidden_, rows, *workspace_);
  std::vector<std::int32_t> target;
  std::vector<float> temperature, logprob;
  for (std::size_t t = 0; t < rows.size(); ++t) {
    target.push_back(samples[t].token);
    temperature.push_back(rows[t].temperature);
    logprob.push_back(samples[t].logprob);
    if (!rows[t].Filtered()) {
      EXPECT_EQ(samples[t].kept_mass_logprob, 0.0f);
    }
    if (!rows[t].allowed.empty()) {
      EXPECT_EQ(samples[t].token % 2, 0);
    }
  }
  EXPECT_EQ(LogProb(*model_, hidden_, target, temperature, *workspace_).logprob, logprob);
}

TEST_P(Sampling, KeepingLogitsChangesNoLogProbAndNoSupport) {
  std::vector<RowSampling> rows = Mixed();
  std::vector<std::int32_t> target;
  std::vector<float> temperature;
  for (RowSampling& row : rows) {
    row.allowed = {};
    row.bias_ids = {};
    row.bias_values = {};
    row.temperature = std::max(row.temperature, 0.5f);
    target.push_back(static_cast<std::int32_t>(target.size() % 7));
    temperature.push_back(row.temperature);
  }
  const auto none = LogProb(*model_, hidden_, target, temperature, *workspace_, rows);
  for (std::size_t most : {std::size_t{6000}, std::size_t{1} << 24}) {
    KeptLogits keep{most};
    const auto kept = LogProb(*model_, hidden_, target, temperature, *workspace_, rows, &keep);
    EXPECT_NE(keep.rows.front(), nullptr);
    EXPECT_EQ(kept.logprob, none.logprob);
    EXPECT_EQ(kept.lse, none.lse);
    for (std::size_t t = 0; t < rows.size(); ++t) {
      EXPECT_EQ(kept.support[t].least, none.support[t].least) << t;
      EXPECT_EQ(kept.support[t].lse, none.support[t].lse) << t;
      EXPECT_EQ(kept.support[t].kept_mass_logprob, none.support[t].kept_mass_logprob) << t;
    }
  }
}

TEST_P(Sampling, AskingForTheLikeliestIdsChangesNoDraw) {
  std::vector<RowSampling> plain = Mixed(), curious = Mixed();
  for (auto& row : plain) row.top_n = 0;
  for (auto& row : curious) row.top_n = 3;
  const auto a = Sample(*model_, hidden_, plain, *workspace_);
  const auto b = Sample(*model_, hidden_, curious, *workspace_);
  for (std::size_t t = 0; t < a.size(); ++t) {
    EXPECT_EQ(a[t].token, b[t].token) << t;
    EXPECT_EQ(a[t].logprob, b[t].logprob) << t;
    EXPECT_TRUE(a[t].top.empty());
    ASSERT_EQ(b[t].top.size(), 3u);
    EXPECT_GE(b[t].top[0].logprob, b[t].logprob);
  }
}

TEST_P(Sampling, MoreLikeliestIdsThanThereAreGiveAllOfThem) {
  RowSampling row;
  row.top_n = 100000;
  const auto sample = Sample(*model_, HiddenRow(0), {&row, 1}, *workspace_);
  EXPECT_EQ(sample[0].top.size(), static_cast<std::size_t>(valid_));
}

TEST_P(Sampling, RowsThatAreNotFiniteHaveNoTokenAndHarmNobody) {
  const std::vector<RowSampling> rows = Mixed();
  const std::vector<RowSample> expected = Sample(*model_, hidden_, rows, *workspace_);
  std::vector<float> hidden = hidden_;
  const auto width = static_cast<std::size_t>(config_.width);
  for (std::size_t t : {3, 4, 5, 100}) {
    hidden[t * width + 1] = std::numeric_limits<float>::quiet_NaN();
  }
  const std::vector<RowSample> got = Sample(*model_, hidden, rows, *workspace_);
  for (std::size_t t = 0; t < rows.size(); ++t) {
    if (t == 3 || t == 4 || t == 5 || t == 100) {
      EXPECT_TRUE(std::isnan(got[t].logprob)) << t;
    } else {
      EXPECT_EQ(got[t].token, expected[t].token) << t;
      EXPECT_EQ(got[t].logprob, expected[t].logprob) << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(VocabulariesOfOneAndOfSeveralBlocks, Sampling, ::testing::Values(37, 700));

}  // namespace
}  // namespace thresher::model
