#pragma once

// Gemm: the product of the fp32 kernel set, and which set multiplies.
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_bf16.inl"
#include "kernels/cpu/gemm_blocks.inl"
#include "kernels/cpu/vec.h"

namespace thresher::kernels::THRESHER_VARIANT {

// x as it is. kSteps values a unit.
template <int kSteps>
static void CopyInput(const TileInput& from, std::int64_t r0, std::int64_t rows, std::int64_t u0,
                      std::int64_t units, void* to) {
  const std::int64_t columns = LesserOf(units * kSteps, from.k - u0 * kSteps);
  const float* x = from.x + r0 * from.ldx + u0 * kSteps;
  float* copy = static_cast<float*>(to);
  for (std::int64_t r = 0; r < rows; ++r, x += from.ldx, copy += kTileLd) {
    std::int64_t i = 0;
    for (; i + 16 <= columns; i += 16) Store(copy + i, Load(x + i));
    if (i < columns) StoreN(copy + i, LoadN(x + i, columns - i), columns - i);
  }
}

static void WidenHalf(const unsigned char* panel, std::int64_t units, float* out) {
  const auto* from = reinterpret_cast<const std::uint16_t*>(panel);
  for (std::int64_t i = 0; i < units * kGemmPanel; i += 16) Store(out + i, LoadHalf(from + i));
}

static void WidenBf16(const unsigned char* panel, std::int64_t units, float* out) {
  for (std::int64_t i = 0; i < units; i += 2, panel += Bf16Form::kUnitBytes) {
    for (int half = 0; half < 2; ++half) {
      F16 w[2];
      Bf16Form::Read(panel, half, w);
      Store(out + i * kGemmPanel + half * 16, w[0]);
      Store(out + (i + 1) * kGemmPanel + half * 16, w[1]);
    }
  }
}

// The planted fault of tests/unit/kernels/row_purity_test.cc: few rows cut K elsewhere.
#if defined(THRESHER_PLANTED_K_SPLIT)
static std::int64_t ChunkOf(std::int64_t t) { return t < 4 ? kGemmKChunk / 2 : kGemmKChunk; }
#else
static constexpr std::int64_t ChunkOf(std::int64_t) { return kGemmKChunk; }
#endif

// The product of the fp32 kernel set. adds: the chunks' sums are added to what y holds.
static void GemmFp32(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                     std::int64_t ldx, const GemmWeights& w, const float* bias, float* y,
                     std::int64_t ldy, bool adds = false) {
  GemmCall c{t, n, k, false, ChunkOf(t), w, bias, y, ldy, adds};
  const TileInput input{x, ldx, k, CopyInput<1>};
  if (t > kGemmRows) {
    if (w.type == WeightType::kF32) {
      GemmManyRows<F32Form>(c, input, {F32Form::kUnitBytes, nullptr});
    } else if (w.type == WeightType::kF16) {
      GemmManyRows<F32Form>(c, input, {F16Form::kUnitBytes, WidenHalf});
    } else {
      GemmManyRows<F32Form>(c, input, {Bf16Form::kUnitBytes / 2, WidenBf16});
    }
    return;
  }
  if (t == 0) return;
  if (w.type == WeightType::kF32) {
    GemmFewRows<F32Form>(c, input);
  } else if (w.type == WeightType::kF16) {
    GemmFewRows<F16Form>(c, input);
  } else {
    c.units = (k + 1) / 2;
    c.half_unit = k % 2 != 0;
    c.chunk = ChunkOf(t) / 2;
    GemmFewRows<Bf16Form>(c, {x, ldx, k, CopyInput<2>});
  }
}

// fp32 panels at a distance of panel_floats.
static void GemmStrided(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                        std::int64_t ldx, const float* packed, std::int64_t panel_floats,
                        const float* bias, float* y, std::int64_t ldy) {
  GemmFp32(t, n, k, x, ldx,
           {reinterpret_cast<const unsigned char*>(packed), WeightType::kF32,
            panel_floats * std::int64_t{sizeof(float)}},
           bias, y, ldy);
}

// The product of the active kernel set: its own for bf16 weights, else fp32's. The table in use may
// hold native forms that this variant lacks.
static void GemmOf(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
                   const GemmWeights& w, const float* bias, float* y, std::int64_t ldy) {
  const KernelSet set = w.type == WeightType::kBf16 ? ActiveKernelSet() : KernelSet::kFp32;
  if (set == KernelSet::kBf16Dot) {
    ActiveTable().gemm_bf16_dot(t, n, k, x, ldx, w, bias, y, ldy);
  } else if (set == KernelSet::kBf16Amx) {
    ActiveTable().gemm_bf16_amx(t, n, k, x, ldx, w, bias, y, ldy);
  } else {
    GemmFp32(t, n, k, x, ldx, w, bias, y, ldy);
  }
}

static void GemmPacked(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                       std::int64_t ldx, PackedMatrix w, const float* bias, float* y,
                       std::int64_t ldy) {
  GemmOf(t, n, k, x, ldx, WeightsFrom(w, k, 0), bias, y, ldy);
}

}  // namespace thresher::kernels::THRESHER_VARIANT
