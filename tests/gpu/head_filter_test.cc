// kernels/cuda/head_filter on a device: bit for bit what kernels/cpu gives.
#include "kernels/cuda/head_filter.h"

#include <algorithm>

#include "kernels/cpu/head_filter.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using gpu::testing::OnDevice;
using Ints = std::vector<std::int32_t>;
using Words = std::vector<std::uint64_t>;

// Rows of logits with the blocks that a scan would leave.
struct Logits {
  std::int64_t t, vocab, ld;
  Floats values, temperature;
  std::vector<HeadBlock> blocks;

  Logits(std::int64_t rows, std::int64_t valid_vocab, unsigned seed)
      : t(rows), vocab(valid_vocab), ld(valid_vocab + 3), values(Random(t * ld, seed)) {
    // From flat to peaked, and rows of few distinct values, with ties.
    for (std::int64_t i = 0; i < t; ++i) {
      const float scale = std::ldexp(1.0f, static_cast<int>(i % 6));
      for (std::int64_t j = 0; j < vocab; ++j) {
        float& x = values[i * ld + j];
        x = i % 4 == 3 ? std::round(x * 3.0f) : x * x * x * scale;
      }
      const float temperatures[] = {1.0f, 0.7f, 0.0f, 1.5f, 0.05f};
      temperature.push_back(temperatures[i % 5]);
    }
  }
  const float* row(std::int64_t i) const { return values.data() + i * ld; }
  void Scan() {
    blocks.resize(t * HeadBlockCount(vocab));
    const OnDevice<float> logits(values), temperatures(temperature);
    const OnDevice<HeadBlock> device(blocks);
    const HeadRows rows{t, 0, vocab, vocab, nullptr, 0, {}, temperatures.data()};
    ASSERT_EQ(cuda::HeadScanLogits(nullptr, rows, nullptr, 0, vocab, logits.data(), ld,
                                   device.data(), {}),
              cudaSuccess);
    blocks = device.Read();
  }
};

// Filters, one a row, and what they mean to the CPU.
struct Filters {
  std::vector<cuda::HeadRowFilter> rows;
  Ints seen, bias_ids;
  Floats bias_values;
  Words allowed;

  HeadFilter OnHost(std::int64_t i) const {
    const cuda::HeadRowFilter& f = rows[i];
    HeadFilter filter{f.temperature, f.top_k, f.top_p, f.min_p, f.repetition_penalty};
    filter.seen = seen.data() + f.seen_begin;
    filter.seen_count = f.seen_count;
    filter.bias_ids = bias_ids.data() + f.bias_begin;
    filter.bias_values = bias_values.data() + f.bias_begin;
    filter.bias_count = f.bias_count;
    if (f.allowed_begin >= 0) filter.allowed = allowed.data() + f.allowed_begin;
    return filter;
  }
  void AddLists(std::int64_t vocab, unsigned seed, cuda::HeadRowFilter* f) {
    std::mt19937 engine(seed);
    f->repetition_penalty = 1.3f;
    f->seen_begin = static_cast<std::int64_t>(seen.size());
    f->bias_begin = static_cast<std::int64_t>(bias_ids.size());
    for (std::int32_t id = -2; id < vocab + 2; id += 1 + static_cast<std::int32_t>(engine() % 40)) {
      seen.push_back(id);
      bias_ids.push_back(id + 1);
      bias_values.push_back(static_cast<float>(engine() % 7) - 3.0f);
      ++f->seen_count, ++f->bias_count;
    }
    if (seed % 2 == 0) return;
    f->allowed_begin = static_cast<std::int64_t>(allowed.size());
    for (std::int64_t w = 0; w < (vocab + 63) / 64; ++w) {
      allowed.push_back(std::uint64_t{engine()} << 32 | engine());
    }
  }
};

Filters MakeFilters(const Logits& logits) {
  const cuda::HeadRowFilter kinds[] = {
      {},
      {.top_p = 0.9f},
      {.top_k = 5},
      {.min_p = 0.02f},
      {.top_k = 40, .top_p = 0.5f, .min_p = 0.001f},
      {.top_k = 1},
      {.top_p = 0.999f},
      {.top_k = 100000},
  };
  Filters filters;
  for (std::int64_t i = 0; i < logits.t; ++i) {
    filters.rows.push_back(kinds[i % std::size(kinds)]);
    filters.rows.back().temperature = logits.temperature[i];
    if (i % 3 == 1) {
      filters.AddLists(logits.vocab, static_cast<unsigned>(i / 3), &filters.rows.back());
    }
  }
  return filters;
}

Floats AsFloats(const std::vector<HeadDraw>& draws) {
  Floats values;
  for (const HeadDraw& draw : draws) {
    Append(&values, {static_cast<float>(draw.token), draw.logprob, draw.kept_mass_logprob});
  }
  return values;
}

class CudaHeadFilter : public gpu::testing::DeviceTest {};

// The draws and kept ids of the chosen rows on the device and on the CPU are the same.
void ExpectSameDraws(const Logits& logits, const Filters& filters, const Ints& chosen) {
  const auto count = static_cast<std::int64_t>(chosen.size());
  const std::int64_t words = (logits.vocab + 63) / 64;
  std::vector<HeadDraw> draws(chosen.size(), HeadDraw{-7, 0, 0});
  Words kept(chosen.size() * words, 0x55);
  std::vector<double> uniform;
  for (std::int64_t i = 0; i < count; ++i) {
    uniform.push_back(i == 0 ? 0.0 : i == 1 ? 1 - 0x1p-53 : std::fmod(0.618 * double(i), 1.0));
    if (chosen[i] < 0) continue;
    draws[i] = HeadSampleFiltered(logits.vocab, logits.row(chosen[i]),
                                  &logits.blocks[chosen[i] * HeadBlockCount(logits.vocab)],
                                  filters.OnHost(i), uniform[i], &kept[i * words]);
  }
  const OnDevice<float> values(logits.values), bias_values(filters.bias_values);
  const OnDevice<HeadBlock> blocks(logits.blocks);
  const OnDevice<std::int32_t> rows(chosen), seen(filters.seen), bias_ids(filters.bias_ids);
  const OnDevice<cuda::HeadRowFilter> device_filters(filters.rows);
  const OnDevice<std::uint64_t> allowed(filters.allowed), device_kept(Words(kept.size(), 0x55));
  const OnDevice<double> device_uniform(uniform);
  const OnDevice<HeadDraw> device_draws(std::vector<HeadDraw>(chosen.size(), HeadDraw{-7, 0, 0}));
  const OnDevice<std::uint8_t> scratch{
      std::vector<std::uint8_t>(cuda::HeadFilterScratchBytes(count, logits.vocab), 0xff)};
  ASSERT_EQ(
      cuda::HeadSampleFiltered(
          nullptr,
          {count, rows.data(), logits.vocab, blocks.data(), {values.data(), logits.ld, nullptr}},
          device_filters.data(), {seen.data(), bias_ids.data(), bias_values.data(), allowed.data()},
          device_uniform.data(), scratch.data(), device_draws.data(), device_kept.data()),
      cudaSuccess);
  EXPECT_TRUE(SameBits(AsFloats(device_draws.Read()), AsFloats(draws)));
  const Words found = device_kept.Read();
  for (std::int64_t i = 0; i < count; ++i) {
    EXPECT_TRUE(std::equal(&kept[i * words], &kept[i * words] + words, &found[i * words])) << i;
  }
}

TEST_F(CudaHeadFilter, DrawsAndKeptIdsAreTheCpus) {
  for (std::int64_t vocab : {1, 200, 1500}) {
    Logits logits(40, vocab, 1);
    logits.Scan();
    Ints chosen(40);
    for (std::int32_t i = 0; i < 40; ++i) chosen[i] = i;
    ExpectSameDraws(logits, MakeFilters(logits), chosen);
  }
}

TEST_F(CudaHeadFilter, PaddingNothingAllowedAndLogitsThatAreNotFinite) {
  Logits logits(6, 700, 2);
  logits.values[1 * logits.ld + 300] = kNaN;
  logits.values[2 * logits.ld + 5] = kInf;
  logits.values[3 * logits.ld + 5] = -kInf;
  logits.Scan();
  Filters filters = MakeFilters(logits);
  filters.rows[4] = {};
  filters.rows[4].temperature = logits.temperature[4];
  filters.rows[4].allowed_begin = static_cast<std::int64_t>(filters.allowed.size());
  filters.allowed.insert(filters.allowed.end(), 11, 0);
  ExpectSameDraws(logits, filters, {0, 1, 2, 3, 4, -1});
}

TEST_F(CudaHeadFilter, TheLikeliestIdsAreTheCpus) {
  for (const auto& [vocab, n] : {std::pair{900, 1}, std::pair{900, 40}, std::pair{20, 20}}) {
    Logits logits(9, vocab, 3);
    logits.values[2 * logits.ld + vocab - 1] = -0.0f;
    logits.Scan();
    Ints chosen{4, 0, -1, 1, 2, 3, 5, 6, 7, 8};
    const auto count = static_cast<std::int64_t>(chosen.size());
    Ints ids(count * n, -7);
    Floats logprobs(count * n, kNaN), temperature(count, 0.0f);
    for (std::int64_t i = 0; i < count; ++i) {
      if (chosen[i] < 0) continue;
      temperature[i] = logits.temperature[chosen[i]];
      HeadTopLogProbs(logits.vocab, logits.row(chosen[i]),
                      &logits.blocks[chosen[i] * HeadBlockCount(logits.vocab)], temperature[i], n,
                      &ids[i * n], &logprobs[i * n]);
    }
    const OnDevice<float> values(logits.values), gtemperature(temperature),
        glogprobs(Floats(count * n, kNaN));
    const OnDevice<HeadBlock> blocks(logits.blocks);
    const OnDevice<std::int32_t> rows(chosen), gids(Ints(count * n, -7));
    ASSERT_EQ(
        cuda::HeadTopLogProbs(
            nullptr,
            {count, rows.data(), logits.vocab, blocks.data(), {values.data(), logits.ld, nullptr}},
            gtemperature.data(), n, gids.data(), glogprobs.data()),
        cudaSuccess);
    EXPECT_EQ(gids.Read(), ids) << n;
    EXPECT_TRUE(SameBits(glogprobs.Read(), logprobs)) << n;
  }
}

}  // namespace
}  // namespace thresher::kernels
