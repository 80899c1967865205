#include "tests/bench/kernels_limits.h"

#include <ctime>
#include <memory>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thresher::bench {
namespace {

constexpr int kRounds = 7;
constexpr std::int64_t kSteps = 400000;
constexpr int kChains = 12;  // of 4 cycles, on 2 units

#if defined(__x86_64__)
__attribute__((target("avx512f"))) float FmaAvx512() {
  __m512 chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (std::int64_t k = 0; k < kSteps; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = _mm512_fmadd_ps(chain[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) chain[0] = _mm512_add_ps(chain[0], chain[i]);
  return _mm512_cvtss_f32(chain[0]);
}

__attribute__((target("avx2,fma"))) float FmaAvx2() {
  __m256 chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (std::int64_t k = 0; k < kSteps; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = _mm256_fmadd_ps(chain[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) chain[0] = _mm256_add_ps(chain[0], chain[i]);
  return _mm256_cvtss_f32(chain[0]);
}
#endif

float FmaPortable() {
  float chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = static_cast<float>(i);
  for (std::int64_t k = 0; k < kSteps; ++k) {
    for (float& c : chain) c = __builtin_fmaf(c, 0.999f, 0.001f);
  }
  float sum = 0;
  for (float c : chain) sum += c;
  return sum;
}

double Gflops(float (*loop)(), int lanes) {
  volatile float sink = 0;
  const double seconds = BestSeconds(kRounds, [&] { sink = loop(); });
  return 2e-9 * kSteps * kChains * lanes / seconds;
}

}  // namespace

double ThreadSeconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double ArithmeticLimit(kernels::CpuVariant variant) {
#if defined(__x86_64__)
  if (variant == kernels::CpuVariant::kAvx2) return Gflops(FmaAvx2, 8);
  if (variant != kernels::CpuVariant::kPortable) return Gflops(FmaAvx512, 16);
#endif
  return Gflops(FmaPortable, 1);
}

double BandwidthLimit(std::size_t bytes) {
  constexpr std::size_t kStreams = 8, kLine = 8;  // words
  const std::size_t words = bytes / sizeof(std::uint64_t) / kStreams / kLine * kLine;
  std::vector<std::uint64_t> memory(words * kStreams, 1);
  volatile std::uint64_t sink = 0;
  const double seconds = BestSeconds(kRounds, [&] {
    std::uint64_t sum[kLine] = {};
    for (std::size_t i = 0; i < words; i += kLine) {
      for (std::size_t s = 0; s < kStreams; ++s) {
        const std::uint64_t* line = memory.data() + s * words + i;
        for (std::size_t j = 0; j < kLine; ++j) sum[j] ^= line[j];
      }
    }
    for (std::uint64_t value : sum) sink = sink + value;
  });
  return 1e-9 * static_cast<double>(words * kStreams * sizeof(std::uint64_t)) / seconds;
}

}  // namespace thresher::bench
