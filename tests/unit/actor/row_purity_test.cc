// Row purity of the whole engine, as a property: a sequence's tokens and log-probabilities are the
// same bits whatever runs beside it. Random models and mixes of requests run alone (one sequence,
// one step for the prompt, no sharing, the fastest variant, one thread) and then in other ways:
// batch size, neighbours, order, late arrivals, pages so few that sequences are preempted, chunks,
// prefix sharing, CPU variant, threads, a few dozen cancelled on the way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "actor/engine/engine.h"
#include "common/sync/worker_pool.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/unit/actor/engine_testing.h"
#include "tests/unit/actor/random_mix.h"

namespace thresher::actor {
namespace {

using kernels::CpuVariant;

constexpr int kShards = 8;
constexpr int kRunsPerMix = 10;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMixesPerShard = 3;  // ten times slower: for its memory accesses, not for its bits
#else
constexpr int kMixesPerShard = 26;
static_assert(kShards * kMixesPerShard * kRunsPerMix >= 2000);
#endif

// One way to run a mix.
struct Way {
  EngineOptions options;
  CpuVariant variant = kernels::BestCpuVariant();
  int threads = 1;
  int submit_per_step = 64;
  std::vector<std::size_t> order;  // of submission, by index of request
  std::size_t cancelled = 0;       // that many of the last in the order are cancelled on the way
};

Way RandomWay(Chance& chance, const Mix& mix) {
  Way way;
  way.options = RandomOptions(chance, mix);
  std::vector<CpuVariant> variants;
  for (CpuVariant variant : kernels::kCpuVariants) {
    // The portable one is slow.
    if (variant == CpuVariant::kPortable && !chance.OneIn(3)) continue;
    if (kernels::CpuVariantAvailable(variant)) variants.push_back(variant);
  }
  if (!variants.empty()) way.variant = chance.Of(variants);
  way.threads = chance.OneIn(4) ? chance.Between(2, 4) : 1;
  way.submit_per_step = chance.OneIn(2) ? 64 : chance.Between(1, 3);
  for (std::size_t i = 0; i < mix.requests.size(); ++i) way.order.push_back(i);
  if (chance.OneIn(2)) chance.Shuffle(way.order);
  if (chance.OneIn(4)) way.cancelled = mix.requests.size() / 4;
  return way;
}

// Workers that find any work worth their attention, so that small models are divided, too.
class Threads {
 public:
  explicit Threads(int count) {
    if (count > 1) pool_.emplace(WorkerPoolOptions{.threads = count, .spin = {}});
  }
  model::WorkspacePtr Workspace() {
    return pool_ ? model::NewWorkspace(&*pool_, 1.0) : model::NewWorkspace();
  }

 private:
  std::optional<WorkerPool> pool_;
};

struct RunOutcome {
  Results results;
  EngineCounters counters;
  bool stuck = false;
};

RunOutcome RunMix(const Mix& mix, const Way& way) {
  kernels::SetCpuVariant(way.variant);
  kernels::SetKernelSet(mix.kernel_set);
  Threads threads(way.threads);
  Engine engine(mix.shape, way.options, threads.Workspace());
  EXPECT_TRUE(engine.SetWeights(mix.weights, PolicyVersion{0, 1}).ok());
  RunOutcome outcome;
  std::size_t next = 0;
  for (int step = 0; next < way.order.size() || engine.load() > 0; ++step) {
    for (int i = 0; i < way.submit_per_step && next < way.order.size(); ++i) {
      const Status status = engine.Submit(mix.requests[way.order[next++]]);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
    if (step % 3 == 2 && step / 3 < static_cast<int>(way.cancelled)) {
      const std::size_t last = way.order.size() - 1 - static_cast<std::size_t>(step / 3);
      if (last < next) (void)engine.Cancel(mix.requests[way.order[last]].id);
    }
    for (GenerationResult& result : StepOf(engine)) {
      const TrajectoryId id = result.id;
      outcome.results.emplace(id, std::move(result));
    }
    if (step > 100000) {
      outcome.stuck = true;
      break;
    }
  }
  outcome.counters = engine.counters();
  kernels::SetCpuVariant(kernels::BestCpuVariant());
  kernels::SetKernelSet(kernels::KernelSet::kFp32);
  return outcome;
}

Results RunAlone(const Mix& mix) {
  Results alone;
  for (std::size_t i = 0; i < mix.requests.size(); ++i) {
    Way way;
    way.options = {1, 4096, 0, false};
    way.order = {i};
    alone.merge(RunMix(mix, way).results);
  }
  return alone;
}

// What differs from the sequences alone; empty if nothing does.
std::string Violation(const RunOutcome& outcome, const Results& alone) {
  if (outcome.stuck) return "no end";
  for (const auto& [id, result] : outcome.results) {
    const std::string difference = Difference(result, alone.at(id));
    if (!difference.empty()) return difference;
  }
  return "";
}

std::string Describe(std::uint64_t seed, const Way& way) {
  return Describe(seed, way.options) + ", " + kernels::CpuVariantName(way.variant) + ", threads " +
         std::to_string(way.threads);
}

class RowPurity : public ::testing::TestWithParam<int> {};

TEST_P(RowPurity, ASequenceIsTheSameBitsInAnyCompany) {
  std::uint64_t preemptions = 0, preempted_runs = 0, shared = 0, sequences = 0, bf16_runs = 0;
  for (int i = 0; i < kMixesPerShard; ++i) {
    const auto seed = static_cast<std::uint64_t>(GetParam() * kMixesPerShard + i);
    const Mix mix(seed);
    const Results alone = RunAlone(mix);
    Chance chance(seed + 1000000);
    for (int run = 0; run < kRunsPerMix; ++run) {
      const Way way = RandomWay(chance, mix);
      const RunOutcome outcome = RunMix(mix, way);
      ASSERT_EQ(Violation(outcome, alone), "") << Describe(seed, way);
      ASSERT_EQ(outcome.results.size() + outcome.counters.cancelled, mix.requests.size());
      ASSERT_EQ(outcome.counters.pages_used, 0u);
      preemptions += outcome.counters.preemptions;
      preempted_runs += outcome.counters.preemptions > 0;
      bf16_runs += mix.shape.dtype == kernels::WeightType::kBf16 &&
                   mix.kernel_set != kernels::KernelSet::kFp32;
      shared += outcome.counters.shared_tokens;
      sequences += outcome.results.size();
    }
  }
  // The cases reach what they are meant for.
  if (kMixesPerShard < 26) return;
  EXPECT_GT(preemptions, 50u);
  EXPECT_GT(preempted_runs, 20u);
  EXPECT_GT(bf16_runs, 10u);
  EXPECT_GT(shared, 5000u);
  EXPECT_GT(sequences, 1000u);
}

INSTANTIATE_TEST_SUITE_P(Shard, RowPurity, ::testing::Range(0, kShards));

// Planted errors: tables of the active variant with one function exchanged.

const kernels::KernelTable* genuine = nullptr;

// Products of more than 8 rows add two halves of K.
void GemmWithKSplit(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                    std::int64_t ldx, kernels::PackedMatrix w, const float* bias, float* y,
                    std::int64_t ldy) {
  if (t <= 8 || k < 2) return genuine->gemm(t, n, k, x, ldx, w, bias, y, ldy);
  std::vector<float> low(static_cast<std::size_t>(t * k)), high(low.size());
  for (std::int64_t row = 0; row < t; ++row) {
    for (std::int64_t i = 0; i < k; ++i) {
      (i < k / 2 ? low : high)[static_cast<std::size_t>(row * k + i)] = x[row * ldx + i];
    }
  }
  std::vector<float> part(static_cast<std::size_t>(t * n));
  genuine->gemm(t, n, k, low.data(), k, w, bias, y, ldy);
  genuine->gemm(t, n, k, high.data(), k, w, nullptr, part.data(), n);
  for (std::int64_t row = 0; row < t; ++row) {
    for (std::int64_t i = 0; i < n; ++i) {
      y[row * ldy + i] += part[static_cast<std::size_t>(row * n + i)];
    }
  }
}

// The same of products with bf16 weights alone.
void Bf16GemmWithKSplit(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, kernels::PackedMatrix w, const float* bias, float* y,
                        std::int64_t ldy) {
  const bool planted = w.type == kernels::WeightType::kBf16;
  (planted ? GemmWithKSplit : genuine->gemm)(t, n, k, x, ldx, w, bias, y, ldy);
}

// The last row of a batch reads its neighbour's pages.
void AttentionOfANeighbour(std::int64_t t, std::int64_t heads, std::int64_t kv_heads,
                           std::int64_t head_dim, const float* q, std::int64_t ldq,
                           const std::int32_t* const* page_tables, const std::int32_t* positions,
                           float scale, const kernels::KvPages& pages, float* out, std::int64_t ldo,
                           float* lse) {
  std::vector<const std::int32_t*> tables(page_tables, page_tables + t);
  if (t > 1 && positions[t - 1] <= positions[t - 2]) tables.back() = tables[tables.size() - 2];
  genuine->attention(t, heads, kv_heads, head_dim, q, ldq, tables.data(), positions, scale, pages,
                     out, ldo, lse);
}

// The first violation within a few mixes, of one run each.
std::string CaughtWith(const kernels::KernelTable& planted) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Mix mix(seed);
    const Results alone = RunAlone(mix);
    Chance chance(seed);
    Way way = RandomWay(chance, mix);
    way.threads = 1;
    kernels::PlantTable(&planted);
    const RunOutcome outcome = RunMix(mix, way);
    kernels::PlantTable(nullptr);
    const std::string violation = Violation(outcome, alone);
    if (!violation.empty()) return violation;
  }
  return "";
}

TEST(RowPurityPlanted, NothingIsFoundWhereNothingIsPlanted) {
  const kernels::KernelTable same = kernels::ActiveTable();
  EXPECT_EQ(CaughtWith(same), "");
}

TEST(RowPurityPlanted, AKSplitOfLargeProductsIsCaught) {
  genuine = &kernels::ActiveTable();
  kernels::KernelTable planted = *genuine;
  planted.gemm = GemmWithKSplit;
  EXPECT_NE(CaughtWith(planted), "");
}

TEST(RowPurityPlanted, AKSplitOfBf16ProductsAloneIsCaught) {
  genuine = &kernels::ActiveTable();
  kernels::KernelTable planted = *genuine;
  planted.gemm = Bf16GemmWithKSplit;
  EXPECT_NE(CaughtWith(planted), "");
}

TEST(RowPurityPlanted, ANeighboursPagesAreCaught) {
  genuine = &kernels::ActiveTable();
  kernels::KernelTable planted = *genuine;
  planted.attention = AttentionOfANeighbour;
  EXPECT_NE(CaughtWith(planted), "");
}

}  // namespace
}  // namespace thresher::actor
