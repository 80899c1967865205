#include "kernels/cpu/head_filter.h"

#include <algorithm>
#include <numeric>

#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using Doubles = std::vector<double>;

// One row of chosen logits: a head of width 1 whose weights they are.
class Row {
 public:
  Row(Floats logits, float temperature)
      : logits_(std::move(logits)),
        temperature_(temperature),
        packed_(PackedFloats(size(), 1)),
        blocks_(static_cast<std::size_t>(HeadBlockCount(size()))) {
    PackF32(size(), 1, logits_.data(), packed_.data());
    float* kept = logits_.data();
    HeadScan(Rows(), nullptr, 0, HeadBlockCount(size()), blocks_.data(), &kept);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(logits_.size()); }
  const Floats& logits() const { return logits_; }

  HeadDraw Draw(HeadFilter filter, double uniform, std::uint64_t* kept = nullptr) const {
    filter.temperature = temperature_;
    return HeadSampleFiltered(size(), logits_.data(), blocks_.data(), filter, uniform, kept);
  }
  std::vector<bool> Kept(const HeadFilter& filter) const {
    std::vector<std::uint64_t> words((logits_.size() + 63) / 64, ~std::uint64_t{0});
    Draw(filter, 0.5, words.data());
    std::vector<bool> kept(logits_.size());
    for (std::size_t j = 0; j < kept.size(); ++j) kept[j] = words[j / 64] >> (j % 64) & 1;
    return kept;
  }
  std::vector<std::int32_t> KeptIds(const HeadFilter& filter) const {
    std::vector<std::int32_t> ids;
    const std::vector<bool> kept = Kept(filter);
    for (std::size_t j = 0; j < kept.size(); ++j) {
      if (kept[j]) ids.push_back(static_cast<std::int32_t>(j));
    }
    return ids;
  }
  float LogProb(std::int32_t target) const {
    float logprob;
    HeadLogProb(1, 1, size(), size(), &one_, 1, {packed_.data()}, &temperature_, &target, &logprob,
                nullptr, nullptr);
    return logprob;
  }
  // Softmax of logits / temperature, and log of the mass of some ids.
  Doubles Probabilities() const {
    Doubles p;
    const double top = *std::max_element(logits_.begin(), logits_.end());
    for (float x : logits_) p.push_back(std::exp((x - top) / Divisor()));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
    return p;
  }
  double Divisor() const { return temperature_ == 0 ? 1.0 : temperature_; }
  std::vector<std::pair<std::int32_t, float>> Top(std::int64_t n) const {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
    Floats logprobs(ids.size());
    HeadTopLogProbs(size(), logits_.data(), blocks_.data(), temperature_, n, ids.data(),
                    logprobs.data());
    std::vector<std::pair<std::int32_t, float>> top;
    for (std::size_t i = 0; i < ids.size(); ++i) top.emplace_back(ids[i], logprobs[i]);
    return top;
  }

 private:
  HeadRows Rows() const {
    return {1, 1, size(), size(), &one_, 1, {packed_.data()}, &temperature_};
  }
  Floats logits_;
  float temperature_;
  float one_ = 1.0f;
  Floats packed_;
  std::vector<HeadBlock> blocks_;
};

// The definition, in double and with a sort. Thresholds are moved by `slack`: more ids are kept
// with a positive one, fewer with a negative one.
std::vector<bool> Oracle(const Row& row, const HeadFilter& f, double slack, Doubles* score_out) {
  const auto n = static_cast<std::size_t>(row.size());
  Doubles score(row.logits().begin(), row.logits().end());
  std::vector<bool> kept(n, true);
  for (std::int64_t i = 0; i < f.seen_count; ++i) {
    double& s = score[static_cast<std::size_t>(f.seen[i])];
    s = s < 0 ? s * f.repetition_penalty : s / f.repetition_penalty;
  }
  for (std::int64_t i = 0; i < f.bias_count; ++i) {
    score[static_cast<std::size_t>(f.bias_ids[i])] += f.bias_values[i];
  }
  for (std::size_t j = 0; j < n; ++j) {
    if (f.allowed != nullptr && (f.allowed[j / 64] >> (j % 64) & 1) == 0) kept[j] = false;
    score[j] /= row.Divisor();
  }
  std::vector<std::size_t> order;
  for (std::size_t j = 0; j < n; ++j) {
    if (kept[j]) order.push_back(j);
  }
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return score[a] > score[b]; });
  const double greatest = score[order[0]];
  if (f.top_k > 0 && f.top_k < order.size()) {
    const double lowest = score[order[f.top_k - 1]], next = score[order[f.top_k]];
    const double threshold = lowest - next < std::abs(slack) ? lowest - slack : lowest;
    std::erase_if(order, [&](auto j) { return score[j] < std::min(threshold, greatest); });
  }
  double total = 0;
  for (std::size_t j : order) total += std::exp(score[j] - greatest);
  std::fill(kept.begin(), kept.end(), false);
  double above = 0;  // of greater scores
  for (std::size_t i = 0; i < order.size();) {
    double here = 0;
    std::size_t end = i;
    for (; end < order.size() && score[order[end]] == score[order[i]]; ++end) {
      here += std::exp(score[order[end]] - greatest);
    }
    const bool enough_mass = f.top_p >= 1.0f || i == 0 || above < (f.top_p + slack) * total;
    const bool likely = std::exp(score[order[i]] - greatest) >= f.min_p * (1 - slack);
    for (; i < end; ++i) kept[order[i]] = enough_mass && likely;
    above += here;
  }
  if (score_out != nullptr) *score_out = score;
  return kept;
}

// A filter with its lists.
struct Case {
  HeadFilter filter;
  std::vector<std::int32_t> seen, bias_ids;
  Floats bias_values;
  std::vector<std::uint64_t> allowed;

  Case(std::mt19937& random, std::int64_t n) {
    const auto chance = [&](unsigned in) { return random() % in == 0; };
    const auto unit = [&] { return static_cast<float>(random() % 1000 + 1) / 1001.0f; };
    if (chance(2)) filter.top_k = 1 + random() % static_cast<unsigned>(n + 2);
    if (chance(2)) filter.top_p = unit();
    if (chance(3)) filter.min_p = unit() * unit();
    if (chance(3)) filter.repetition_penalty = 0.5f + 2 * unit();
    for (std::int32_t j = 0; j < n; ++j) {
      if (chance(5)) seen.push_back(j);
      if (chance(9)) {
        bias_ids.push_back(j);
        bias_values.push_back(6 * unit() - 3);
      }
    }
    if (chance(2)) bias_ids.clear(), bias_values.clear();
    if (chance(2)) {
      allowed.resize(static_cast<std::size_t>(n + 63) / 64);
      for (std::uint64_t& word : allowed) word = std::uint64_t{random()} << 32 | random();
      const auto sure = random() % static_cast<unsigned>(n);
      allowed[sure / 64] |= std::uint64_t{1} << (sure % 64);
    }
    filter.seen = seen.data();
    filter.seen_count = static_cast<std::int64_t>(seen.size());
    filter.bias_ids = bias_ids.data();
    filter.bias_values = bias_values.data();
    filter.bias_count = static_cast<std::int64_t>(bias_ids.size());
    filter.allowed = allowed.empty() ? nullptr : allowed.data();
  }
};

TEST(HeadFilter, KeepsTheIdsOfTheDefinition) {
  std::mt19937 random(5);
  int decided = 0, cases = 0;
  for (std::int64_t n : {1, 2, 7, 16, 50, 256, 257, 1000}) {
    for (unsigned i = 0; i < 100; ++i, ++cases) {
      const float temperature = 0.2f + static_cast<float>(random() % 20) / 10.0f;
      const Row row(Random(n, random(), 5.0f), temperature);
      const Case c(random, n);
      const std::vector<bool> kept = row.Kept(c.filter);
      // Scores are good to a few units of 2^-24 x 35, masses to 2^-22 and 1000 x 2^-40.
      const std::vector<bool> most = Oracle(row, c.filter, 2e-5, nullptr);
      const std::vector<bool> least = Oracle(row, c.filter, -2e-5, nullptr);
      decided += most == least;
      for (std::size_t j = 0; j < kept.size(); ++j) {
        ASSERT_LE(kept[j], most[j]) << n << ' ' << i << ' ' << j;
        ASSERT_GE(kept[j], least[j]) << n << ' ' << i << ' ' << j;
      }
    }
  }
  EXPECT_GT(decided, cases * 95 / 100);
}

TEST(HeadFilter, EqualScoresAreKeptOrDroppedTogether) {
  const Row row({0, 1, 1, -0.0f, 2, 1, 0, -5}, 1.0f);
  HeadFilter filter;
  filter.top_k = 1;
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{4}));
  filter.top_k = 2;  // the second greatest score is 1, three times
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{1, 2, 4, 5}));
  filter.top_k = 5;  // 0 and -0 are equal
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6}));
  for (std::uint32_t all : {8u, 9u, UINT32_MAX}) {
    filter.top_k = all;
    EXPECT_EQ(row.KeptIds(filter).size(), 8u);
  }
  // Masses 7.389, 3 x 2.718, 3 x 1, 0.007: the first has 0.40 of all, the first four 0.84.
  filter.top_k = 0;
  for (const auto& [top_p, size] : std::vector<std::pair<float, std::size_t>>{
           {1e-6f, 1}, {0.39f, 1}, {0.41f, 4}, {0.83f, 4}, {0.85f, 7}, {0.9999f, 8}}) {
    filter.top_p = top_p;
    EXPECT_EQ(row.KeptIds(filter).size(), size) << top_p;
  }
  filter.top_p = 1;
  filter.min_p = std::exp(-1.0f) * 0.999f;
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{1, 2, 4, 5}));
  filter.min_p = 1.0f;
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{4}));
}

TEST(HeadFilter, TopPCountsTheMassThatTopKLeft) {
  // Masses 4, 2, 1, 1: with top-k 2 the first has 2/3 of what is left, alone half of all.
  const Row row({std::log(4.0f), std::log(2.0f), 0, 0}, 1.0f);
  HeadFilter filter;
  filter.top_p = 0.6f;
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{0, 1}));
  filter.top_k = 2;
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{0}));
}

TEST(HeadFilter, ThePenaltyMakesSeenIdsLessLikelyWhateverTheirSign) {
  const Row row({2.0f, -2.0f, 2.0f, -2.0f}, 1.0f);
  const std::int32_t seen[] = {0, 1, -3, 77};  // ids outside are passed over
  HeadFilter filter;
  filter.repetition_penalty = 2.0f;
  filter.seen = seen;
  filter.seen_count = 4;
  filter.min_p = std::exp(-1.001f);  // scores 1, -4, 2, -2: greatest 2
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{0, 2}));
  filter.min_p = std::exp(-4.001f);
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{0, 2, 3}));
}

TEST(HeadFilter, DrawsFollowTheKeptMasses) {
  std::mt19937 random(8);
  for (int i = 0; i < 20; ++i) {
    const Row row(Random(300, random(), 3.0f), 0.8f);
    const Case c(random, 300);
    const std::vector<bool> kept = row.Kept(c.filter);
    Doubles mass;
    Oracle(row, c.filter, 0, &mass);
    double greatest = -1e9, total = 0;
    for (std::size_t j = 0; j < mass.size(); ++j) {
      if (kept[j]) greatest = std::max(greatest, mass[j]);
    }
    for (std::size_t j = 0; j < mass.size(); ++j) {
      total += mass[j] = kept[j] ? std::exp(mass[j] - greatest) : 0;
    }
    constexpr int kDraws = 4000;  // an even grid: each count is exact to one at either end
    std::vector<int> count(mass.size());
    for (int k = 0; k < kDraws; ++k) {
      ++count[static_cast<std::size_t>(row.Draw(c.filter, (k + 0.5) / kDraws).token)];
    }
    for (std::size_t j = 0; j < mass.size(); ++j) {
      ASSERT_NEAR(count[j], mass[j] / total * kDraws, kept[j] ? 1.05 : 0.0) << i << ' ' << j;
    }
  }
}

TEST(HeadFilter, RandomDrawsPassAChiSquareTest) {
  const Row row(Random(40, 3, 2.0f), 1.0f);
  HeadFilter filter;
  filter.top_k = 12;
  const std::vector<std::int32_t> ids = row.KeptIds(filter);
  ASSERT_EQ(ids.size(), 12u);
  const Doubles p = row.Probabilities();
  double total = 0;
  for (std::int32_t id : ids) total += p[static_cast<std::size_t>(id)];
  constexpr int kDraws = 40000;
  std::vector<int> count(40);
  std::mt19937_64 random(17);
  for (int i = 0; i < kDraws; ++i) {
    ++count[static_cast<std::size_t>(row.Draw(filter, (random() >> 11) * 0x1p-53).token)];
  }
  double chi2 = 0;
  for (std::int32_t id : ids) {
    const double expected = p[static_cast<std::size_t>(id)] / total * kDraws;
    ASSERT_GT(expected, 100);
    chi2 += std::pow(count[static_cast<std::size_t>(id)] - expected, 2) / expected;
  }
  EXPECT_LT(chi2, 31.3);  // 11 degrees of freedom: 0.1 %
}

TEST(HeadFilter, ExtremesOfTheUniformDrawKeptIds) {
  const Row row(Random(700, 4, 4.0f), 1.0f);
  HeadFilter filter;
  filter.top_k = 9;
  const std::vector<std::int32_t> ids = row.KeptIds(filter);
  EXPECT_EQ(row.Draw(filter, 0.0).token, ids.front());
  EXPECT_EQ(row.Draw(filter, std::nextafter(1.0, 0.0)).token, ids.back());
}

TEST(HeadFilter, LogProbsAreThoseOfTheFullDistribution) {
  std::mt19937 random(9);
  for (std::int64_t n : {1, 30, 256, 700}) {
    for (float temperature : {0.0f, 0.7f, 1.0f}) {
      for (int i = 0; i < 20; ++i) {
        const Row row(Random(n, random(), 5.0f), temperature);
        const Case c(random, n);
        const HeadDraw draw = row.Draw(c.filter, 0.37);
        EXPECT_TRUE(SameBits({draw.logprob}, {row.LogProb(draw.token)}));
        const Doubles p = row.Probabilities();
        double mass = 0;
        for (std::int32_t id : row.KeptIds(c.filter)) mass += p[static_cast<std::size_t>(id)];
        // z and the log-sum-exp are below 60, the sum has up to 700 terms.
        const double bound = kUnit * (4 * 60 + 700 / 16 + 64);
        if (c.filter.repetition_penalty == 1.0f && c.bias_ids.empty()) {
          EXPECT_NEAR(draw.kept_mass_logprob, std::log(mass), bound);
          EXPECT_LE(draw.kept_mass_logprob, 0.0f);
          continue;
        }
        Doubles score;
        (void)Oracle(row, c.filter, 0, &score);
        double sum = 0;
        for (std::int32_t id : row.KeptIds(c.filter)) {
          sum += std::exp(score[static_cast<std::size_t>(id)]);
        }
        const double sampled = score[static_cast<std::size_t>(draw.token)] - std::log(sum);
        EXPECT_NEAR(draw.logprob - draw.kept_mass_logprob, sampled, 3 * bound);
      }
    }
  }
}

TEST(HeadFilter, TemperatureZeroTakesTheGreatestScoreAfterBiasAndMask) {
  const Row row({1.0f, 3.0f, 2.0f, 2.0f}, 0.0f);
  HeadFilter filter;
  const std::uint64_t allowed = 0b1101;
  filter.allowed = &allowed;
  EXPECT_EQ(row.Draw(filter, 0.9).token, 2);  // 3 has the same score
  EXPECT_EQ(row.KeptIds(filter), (std::vector<std::int32_t>{2}));
  const std::int32_t id = 0;
  const float value = 1.5f;
  filter.bias_ids = &id;
  filter.bias_values = &value;
  filter.bias_count = 1;
  const HeadDraw draw = row.Draw(filter, 0.9);
  EXPECT_EQ(draw.token, 0);
  EXPECT_TRUE(SameBits({draw.logprob}, {draw.kept_mass_logprob}));  // one id is kept
  EXPECT_TRUE(SameBits({draw.logprob}, {row.LogProb(0)}));
}

TEST(HeadFilter, WithNothingToDrawFromThereIsNoToken) {
  HeadFilter filter;
  filter.top_k = 2;
  const std::uint64_t none = 0;
  HeadFilter masked = filter;
  masked.allowed = &none;
  EXPECT_EQ(Row({1, 2, 3}, 1.0f).Draw(masked, 0.5).token, -1);
  for (float bad : {kNaN, kInf, -kInf}) {
    const HeadDraw draw = Row({1, bad, 3}, 1.0f).Draw(filter, 0.5);
    if (bad == -kInf) {
      EXPECT_TRUE(draw.token == 0 || draw.token == 2);  // it has no mass, and that is all
      continue;
    }
    EXPECT_EQ(draw.token, -1) << bad;
    EXPECT_TRUE(std::isnan(draw.logprob));
  }
}

TEST(HeadFilter, HasTheSameBitsInAllVariants) {
  ExpectSameBitsInAllVariants([] {
    Floats all;
    std::mt19937 random(10);
    for (std::int64_t n : {1, 15, 300, 1111}) {
      for (int i = 0; i < 25; ++i) {
        const Row row(Random(n, random(), 6.0f), i % 5 == 0 ? 0.0f : 0.6f);
        const Case c(random, n);
        const HeadDraw draw = row.Draw(c.filter, (i + 0.5) / 25);
        Append(&all, {static_cast<float>(draw.token), draw.logprob, draw.kept_mass_logprob});
        for (std::int32_t id : row.KeptIds(c.filter)) all.push_back(static_cast<float>(id));
        for (const auto& [id, logprob] : row.Top(std::min<std::int64_t>(n, 8))) {
          Append(&all, {static_cast<float>(id), logprob});
        }
      }
    }
    return all;
  });
}

TEST(HeadTopLogProbs, AreTheLikeliestIdsInOrder) {
  for (std::int64_t n : {1, 20, 256, 900}) {
    for (float temperature : {0.0f, 0.5f}) {
      Floats logits = Random(n, static_cast<unsigned>(n), 4.0f);
      for (float& x : logits) x = std::round(x * 8) / 8;  // many ties
      const Row row(logits, temperature);
      std::vector<std::int32_t> order(static_cast<std::size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
      });
      for (std::int64_t wanted : {std::int64_t{1}, std::min<std::int64_t>(n, 20), n}) {
        const auto top = row.Top(wanted);
        for (std::size_t i = 0; i < top.size(); ++i) {
          ASSERT_EQ(top[i].first, order[i]) << n << ' ' << i;
          ASSERT_TRUE(SameBits({top[i].second}, {row.LogProb(order[i])}));
        }
      }
    }
  }
}

}  // namespace
}  // namespace thresher::kernels
