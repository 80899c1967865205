// Rates of the CPU kernels on one core, for each variant this CPU can run. GFLOP/s count a
// multiplication and an addition as two; compare with the core's peak (two 16-lane fma a cycle with
// AVX-512: 64 x GHz; AVX2: 32 x GHz).
#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/swiglu.h"

namespace thresher::kernels {
namespace {

using Floats = std::vector<float>;

Floats Values(std::int64_t n) {
  Floats values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 2654435761u) >> 8 & 0xffff) * 0x1p-16f - 0.5f;
  }
  return values;
}

std::size_t PackedFloats(std::int64_t n, std::int64_t k) {
  return PackedBytes(WeightType::kF32, n, k) / sizeof(float);
}

void PackF32(std::int64_t n, std::int64_t k, const float* w, float* packed) {
  PackRows(WeightType::kF32, n, k, 0, n, w, packed);
}

void Rate(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: T, N, K.
void BenchGemm(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  const std::int64_t t = state.range(0), n = state.range(1), k = state.range(2);
  const Floats x = Values(t * k), w = Values(n * k);
  Floats packed(PackedFloats(n, k)), y(t * n);
  PackF32(n, k, w.data(), packed.data());
  for (auto _ : state) Gemm(t, n, k, x.data(), k, {packed.data()}, nullptr, y.data(), n);
  Rate(state, 2.0 * t * n * k);
}

void BenchWeightGrad(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  const std::int64_t t = state.range(0), n = state.range(1), k = state.range(2);
  const Floats x = Values(t * k), dy = Values(t * n);
  Floats dw(n * k);
  for (auto _ : state) {
    GemmAccumulateWeightGrad(t, n, k, dy.data(), n, x.data(), k, dw.data());
  }
  Rate(state, 2.0 * t * n * k);
}

// A sequence of `length` positions, 8 heads on 4 KV heads, with pages and all buffers.
struct AttentionCase {
  std::int64_t length, dh;
  Floats q, k, v, out, lse, k_pages, v_pages, dq, dk, dv;
  std::vector<std::int32_t> table, positions;
  std::vector<const std::int32_t*> tables;
  KvPages pages;
  static constexpr std::int64_t kHeads = 8, kKvHeads = 4;

  AttentionCase(std::int64_t n, std::int64_t head_dim)
      : length(n),
        dh(head_dim),
        q(Values(n * kHeads * dh)),
        k(Values(n * kKvHeads * dh)),
        v(Values(n * kKvHeads * dh)),
        out(q.size()),
        lse(n * kHeads),
        dq(q.size()),
        dk(k.size()),
        dv(v.size()),
        table((n + kKvPageSize - 1) / kKvPageSize),
        positions(n),
        tables(n, table.data()) {
    const std::size_t page = KvPageFloats(kKvHeads, dh);
    k_pages.resize(table.size() * page);
    v_pages.resize(table.size() * page);
    pages = {k_pages.data(), v_pages.data(), page};
    std::iota(table.begin(), table.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    WriteKv(n, kKvHeads, dh, k.data(), kKvHeads * dh, v.data(), kKvHeads * dh, tables.data(),
            positions.data(), pages);
  }
  void Forward(std::int64_t first, std::int64_t rows) {
    const std::int64_t width = kHeads * dh;
    Attention(rows, kHeads, kKvHeads, dh, q.data() + first * width, width, tables.data(),
              positions.data() + first, 0.125f, pages, out.data() + first * width, width,
              lse.data() + first * kHeads);
  }
  void Backward() {
    const std::int64_t wide = kHeads * dh, narrow = kKvHeads * dh;
    AttentionBackward({length,    kHeads, kKvHeads,   dh,     q.data(),  wide,  k.data(),   narrow,
                       v.data(),  narrow, out.data(), wide,   q.data(),  wide,  lse.data(), 0.125f,
                       dq.data(), wide,   dk.data(),  narrow, dv.data(), narrow});
  }
};

// Arguments: positions, Dh.
void BenchPrefill(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  AttentionCase c(state.range(0), state.range(1));
  for (auto _ : state) c.Forward(0, c.length);
  Rate(state, 2.0 * AttentionCase::kHeads * c.dh * c.length * (c.length + 1));
}

void BenchDecode(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  AttentionCase c(state.range(0), state.range(1));
  for (auto _ : state) c.Forward(c.length - 1, 1);
  Rate(state, 4.0 * AttentionCase::kHeads * c.dh * c.length);
}

void BenchAttentionBackward(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  AttentionCase c(state.range(0), state.range(1));
  c.Forward(0, c.length);
  for (auto _ : state) c.Backward();
  Rate(state, 5.0 * AttentionCase::kHeads * c.dh * c.length * (c.length + 1));
}

// Arguments: T, D, V.
void BenchHead(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  const std::int64_t t = state.range(0), d = state.range(1), v = state.range(2);
  const Floats hidden = Values(t * d), w = Values(v * d), temperature(t, 1.0f);
  const std::vector<double> uniform(t, 0.5);
  Floats packed(PackedFloats(v, d)), logprob(t);
  std::vector<std::int32_t> token(t);
  PackF32(v, d, w.data(), packed.data());
  for (auto _ : state) {
    HeadSample(t, d, v, v, hidden.data(), d, {packed.data()}, temperature.data(), uniform.data(),
               token.data(), logprob.data());
  }
  Rate(state, 2.0 * t * d * v);
}

// Argument: F.
void BenchSwiglu(benchmark::State& state, CpuVariant variant) {
  SetCpuVariant(variant);
  const std::int64_t t = 64, f = state.range(0);
  const Floats gate = Values(t * f), up = Values(t * f);
  Floats y(t * f);
  for (auto _ : state) SwigluForward(t, f, gate.data(), f, up.data(), f, y.data(), f);
  state.SetItemsProcessed(state.iterations() * t * f);
}

void RegisterVariant(CpuVariant variant) {
  const std::string suffix = std::string("/") + CpuVariantName(variant);
  const auto add = [&](const char* name, void (*bench)(benchmark::State&, CpuVariant),
                       const std::vector<std::vector<std::int64_t>>& arguments) {
    auto* registered = benchmark::RegisterBenchmark(
        (name + suffix).c_str(), [=](benchmark::State& state) { bench(state, variant); });
    for (const auto& a : arguments) registered->Args(a);
  };
  add("gemm", BenchGemm,
      {{1, 288, 96},
       {8, 288, 96},
       {64, 288, 96},
       {1024, 288, 96},
       {64, 96, 512},
       {1, 512, 512},
       {256, 512, 512},
       {4096, 512, 512}});
  add("weight_grad", BenchWeightGrad, {{512, 288, 96}, {512, 512, 512}});
  add("attention_prefill", BenchPrefill, {{256, 24}, {256, 64}, {1024, 64}});
  add("attention_decode", BenchDecode, {{256, 24}, {256, 64}, {1024, 64}});
  add("attention_backward", BenchAttentionBackward, {{256, 24}, {256, 64}});
  add("head_sample", BenchHead, {{64, 96, 48}, {64, 512, 8192}});
  add("swiglu", BenchSwiglu, {{512}});
}

}  // namespace
}  // namespace thresher::kernels

int main(int argc, char** argv) {
  using thresher::kernels::CpuVariant;
  for (CpuVariant variant : {CpuVariant::kAvx512, CpuVariant::kAvx2, CpuVariant::kPortable}) {
    if (thresher::kernels::CpuVariantAvailable(variant)) {
      thresher::kernels::RegisterVariant(variant);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
