#include "tests/bench/engine/engine_bf16_limits.h"

#include <cstdint>

#include "tests/bench/kernels_limits.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thresher::bench {

#if defined(__x86_64__)
namespace {

constexpr int kRounds = 7;
constexpr std::int64_t kSteps = 200000;
constexpr int kChains = 12;
constexpr int kTiles = 4;  // of sums; the other four hold operands

__attribute__((target("avx512f,avx512bf16"))) float DotChains() {
  __m512 chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3c003c00));  // 0.0078
  const auto b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3c103c10));
  for (std::int64_t k = 0; k < kSteps; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) chain[0] = _mm512_add_ps(chain[0], chain[i]);
  return _mm512_cvtss_f32(chain[0]);
}

// Palette 1, all tiles 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile,amx-bf16"))) float TileChains() {
  const TileConfig config;
  asm volatile("" : : : "memory");
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (std::int64_t k = 0; k < kSteps; ++k) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float sums[256];
  _tile_stored(0, sums, 64);
  _tile_release();
  asm volatile("" : : : "memory");
  return sums[0];
}

double Gflops(float (*loop)(), double flop_of_a_step) {
  volatile float sink = 0;
  const double seconds = BestSeconds(kRounds, [&] { sink = loop(); });
  return 1e-9 * static_cast<double>(kSteps) * flop_of_a_step / seconds;
}

}  // namespace

double Bf16DotLimit() { return Gflops(DotChains, kChains * 16 * 4.0); }
double Bf16AmxLimit() { return Gflops(TileChains, kTiles * 16 * 16 * 32 * 2.0); }
#else
double Bf16DotLimit() { return 0; }
double Bf16AmxLimit() { return 0; }
#endif

}  // namespace thresher::bench
