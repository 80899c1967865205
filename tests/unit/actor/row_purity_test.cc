// Row purity of the whole engine, as a property: a sequence's tokens and log-probabilities are the
// same bits whatever runs beside it. Random models and mixes of requests run alone (one sequence,
// one step for the prompt, no sharing, the fastest variant, one thread) and then in other ways:
// batch size, neighbours, order, late arrivals, pages so few that sequences are preempted, chunks,
// prefix sharing, CPU variant, threads, a few dozen cancelled on the way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "actor/engine/engine.h"
#include "common/sync/worker_pool.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/unit/actor/engine_testing.h"
#include "tests/unit/model/small_model.h"

namespace thresher::actor {
namespace {

using kernels::CpuVariant;
using Results = std::map<TrajectoryId, GenerationResult>;

constexpr int kShards = 8;
constexpr int kRunsPerMix = 10;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMixesPerShard = 3;  // ten times slower: for its memory accesses, not for its bits
#else
constexpr int kMixesPerShard = 26;
static_assert(kShards * kMixesPerShard * kRunsPerMix >= 2000);
#endif
constexpr std::int32_t kContext = 160;

// Chances of a test's own, apart from those of the engine.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : random_(seed, {}, RandomPurpose::kBootstrap) {}
  int Between(int low, int high) { return static_cast<int>(random_.Between(low, high)); }
  bool OneIn(std::uint64_t n) { return random_.Below(n) == 0; }
  float Unit() { return static_cast<float>(random_.NextUniform()); }
  template <typename T>
  const T& Of(const std::vector<T>& values) {
    return values[random_.Below(values.size())];
  }
  template <typename T>
  void Shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[random_.Below(i)]);
    }
  }

 private:
  RandomSequence random_;
};

model::ModelConfig RandomShape(Chance& chance) {
  static const std::vector<std::string> kFamilies = {"llama", "llama3", "qwen2", "qwen3"};
  static const std::vector<kernels::WeightType> kTypes = {
      kernels::WeightType::kF32, kernels::WeightType::kBf16, kernels::WeightType::kF16};
  model::ModelConfig shape = model::SmallConfig(chance.Of(kFamilies), chance.OneIn(2));
  shape.dtype = chance.Of(kTypes);
  shape.vocab = chance.OneIn(4) ? chance.Between(257, 600) : chance.Between(20, 120);
  shape.layers = chance.Between(1, 2);
  shape.head_dim = 8 * chance.Between(1, 2);
  shape.kv_heads = chance.Between(1, 2);
  shape.heads = shape.kv_heads * chance.Between(1, 3);
  shape.width = 8 * chance.Between(2, 6);
  // A product of more than one chunk of K is rare, for it is slow.
  shape.ffn_width = 8 * (chance.OneIn(8) ? chance.Between(65, 70) : chance.Between(2, 9));
  shape.context = kContext;
  return shape;
}

SamplingParams RandomSampling(Chance& chance, std::int32_t vocab) {
  SamplingParams sampling;
  sampling.max_new_tokens = static_cast<std::uint32_t>(chance.Between(1, 40));
  sampling.temperature = chance.OneIn(8) ? 0.0f : 0.4f + chance.Unit();
  if (!chance.OneIn(3)) return sampling;
  if (chance.OneIn(2)) sampling.top_k = static_cast<std::uint32_t>(chance.Between(1, 30));
  if (chance.OneIn(2)) sampling.top_p = 0.3f + 0.69f * chance.Unit();
  if (chance.OneIn(3)) sampling.min_p = 0.1f * chance.Unit();
  if (chance.OneIn(3)) sampling.repetition_penalty = 0.8f + chance.Unit();
  if (chance.OneIn(3)) sampling.logit_bias = {{1, 2 * chance.Unit()}, {5, -3.0f}};
  if (chance.OneIn(4)) {
    for (std::int32_t token = 0; token < vocab; token += 3)
      sampling.allowed_tokens.push_back(token);
  }
  return sampling;
}

// A model and up to 64 requests: groups with one prompt, prompts that begin alike, strangers.
struct Mix {
  explicit Mix(std::uint64_t seed) {
    Chance chance(seed);
    shape = RandomShape(chance);
    kernel_set = kernels::kKernelSets[chance.Between(0, 2)];
    weights = model::PackedModel::Make(shape, model::LivelyWeights(shape, seed), 0, false);
    const int count = chance.OneIn(6) ? chance.Between(30, 64) : chance.Between(1, 12);
    std::vector<std::int32_t> prompt;
    while (static_cast<int>(requests.size()) < count) {
      const std::vector<std::int32_t> fresh =
          model::RandomTokens(1000 * seed + requests.size(), chance.Between(1, 70), shape.vocab);
      const bool continues = chance.OneIn(3) && prompt.size() < 60;
      const std::size_t kept = continues ? prompt.size() / 2 : 0;
      prompt.resize(kept);
      prompt.insert(prompt.end(), fresh.begin(), fresh.end());
      prompt.resize(std::min<std::size_t>(prompt.size(), 110));
      const SamplingParams sampling = RandomSampling(chance, shape.vocab);
      for (int sample = chance.OneIn(2) ? chance.Between(2, 8) : 1; sample > 0; --sample) {
        GenerationRequest request;
        request.id.item = requests.size();
        request.prompt = prompt;
        request.sampling = sampling;
        request.run_seed = seed;
        if (chance.OneIn(3)) request.stop_tokens = {3, 4};
        if (chance.OneIn(5)) request.top_logprobs = 3;
        requests.push_back(request);
      }
    }
  }

  std::int32_t LongestPages() const {
    std::size_t longest = 0;
    for (const GenerationRequest& request : requests) {
      longest = std::max(longest, request.prompt.size() + request.sampling.max_new_tokens);
    }
    return PagesFor(longest);
  }

  model::ModelConfig shape;
  kernels::KernelSet kernel_set = kernels::KernelSet::kFp32;
  std::shared_ptr<const model::PackedModel> weights;
  std::vector<GenerationRequest> requests;
};

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
  way.options.max_batch = chance.OneIn(3) ? 64 : chance.Between(1, 64);
  way.options.prefill_chunk = chance.OneIn(2) ? chance.Between(1, 30) : 512;
  way.options.kv_pages = mix.LongestPages() + (chance.OneIn(2) ? chance.Between(0, 3) : 200);
  way.options.prefix_sharing = !chance.OneIn(3);
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

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// What differs from the sequences alone; empty if nothing does.
std::string Violation(const RunOutcome& outcome, const Results& alone) {
  if (outcome.stuck) return "no end";
  for (const auto& [id, result] : outcome.results) {
    const GenerationResult& expected = alone.at(id);
    if (result.tokens != expected.tokens) return id.ToString() + ": tokens";
    if (!SameBits(result.logprobs, expected.logprobs)) return id.ToString() + ": logprobs";
    if (!SameBits(result.kept_mass_logprobs, expected.kept_mass_logprobs)) {
      return id.ToString() + ": kept mass";
    }
    if (result.top_logprobs != expected.top_logprobs) return id.ToString() + ": top logprobs";
    if (result.finish != expected.finish) return id.ToString() + ": finish";
    if (result.kv_history != expected.kv_history) return id.ToString() + ": KV history";
    if (result.versions != expected.versions) return id.ToString() + ": versions";
  }
  return "";
}

std::string Describe(std::uint64_t seed, const Way& way) {
  return "mix " + std::to_string(seed) + ": batch " + std::to_string(way.options.max_batch) +
         ", chunk " + std::to_string(way.options.prefill_chunk) + ", pages " +
         std::to_string(way.options.kv_pages) + ", sharing " +
         std::to_string(way.options.prefix_sharing) + ", " + kernels::CpuVariantName(way.variant) +
         ", threads " + std::to_string(way.threads);
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
