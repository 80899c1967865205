// Rates of the CPU kernels on one core, as one JSON object: the limits of this core, then a row for
// each measurement. Usage: kernels_bench [--variant NAME] [--only gemm|attention|other] [--quick]
//
// gemm rows: M, N, K, type; GFLOP/s (a multiplication and an addition are two) and its fraction of
// the arithmetic limit; GB/s of packed weights and its fraction of the bandwidth limit;
// `limit_fraction`, the larger of the two. "in cache": one small matrix over and over; "streamed":
// as a model's weights are read, each matrix once before the first one comes again (256 MB of
// them).
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/swiglu.h"
#include "tests/bench/kernels_limits.h"

namespace thresher::bench {
namespace {

using namespace kernels;
using Floats = std::vector<float>;
using nlohmann::json;

struct Options {
  CpuVariant variant = BestCpuVariant();
  std::string only;
  bool quick = false;
};

struct Limits {
  double gflops;
  double gigabytes;
};

Floats Values(std::int64_t n) {
  Floats values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 2654435761u) >> 8 & 0xffff) * 0x1p-16f - 0.5f;
  }
  return values;
}

void Print(const json& row) {
  static bool first = true;
  std::cout << (first ? "\n" : ",\n") << row.dump() << std::flush;
  first = false;
}

// `copies` packed matrices [N, K]; their values do not matter to the speed.
struct Weights {
  std::int64_t n, k;
  WeightType type;
  std::size_t bytes;
  std::vector<std::uint8_t> images;
  std::size_t copies;

  Weights(std::int64_t rows, std::int64_t columns, WeightType weight_type, bool streamed)
      : n(rows), k(columns), type(weight_type), bytes((PackedBytes(type, n, k) + 63) / 64 * 64) {
    constexpr std::size_t kStreamed = 256u << 20;
    copies = streamed ? std::max<std::size_t>(1, kStreamed / bytes) : 1;
    images.assign(copies * bytes + 64, 0);
    for (std::size_t i = 0; i + 1 < images.size(); i += 2) images[i + 1] = 0x3c;  // about 0.01, 1
  }
  PackedMatrix Copy(std::size_t i) const {
    const auto base = (reinterpret_cast<std::uintptr_t>(images.data()) + 63) / 64 * 64;
    return {reinterpret_cast<const std::uint8_t*>(base) + i % copies * bytes, type};
  }
};

void GemmRow(const Limits& limits, std::int64_t m, const Weights& w) {
  const Floats x = Values(m * w.k);
  Floats y(static_cast<std::size_t>(m * w.n));
  const double flops = 2.0 * static_cast<double>(m * w.n * w.k);
  // About 20 ms a round, every matrix at least once when they are streamed from memory.
  const auto calls = std::max<std::size_t>(w.copies > 1 ? std::min<std::size_t>(w.copies, 64) : 1,
                                           static_cast<std::size_t>(2e9 / flops));
  std::size_t next = 0;
  const double seconds = BestSeconds(5, [&] {
    for (std::size_t i = 0; i < calls; ++i, ++next) {
      Gemm(m, w.n, w.k, x.data(), w.k, w.Copy(next), nullptr, y.data(), w.n);
    }
  });
  const double gflops = 1e-9 * flops * static_cast<double>(calls) / seconds;
  const double gigabytes = 1e-9 * static_cast<double>(w.bytes * calls) / seconds;
  const double arithmetic = gflops / limits.gflops, memory = gigabytes / limits.gigabytes;
  Print({{"kernel", "gemm"},
         {"M", m},
         {"N", w.n},
         {"K", w.k},
         {"type", WeightTypeName(w.type)},
         {"weights", w.copies > 1 ? "streamed" : "in cache"},
         {"gflops", gflops},
         {"arithmetic_fraction", arithmetic},
         {"gigabytes", gigabytes},
         {"bandwidth_fraction", memory},
         {"limit_fraction", w.copies > 1 ? std::max(arithmetic, memory) : arithmetic}});
}

void BenchGemm(const Options& options, const Limits& limits) {
  struct Shape {
    std::int64_t n, k;
    bool streamed;
  };
  std::vector<Shape> shapes = {{768, 96, false},  {96, 384, false},  {3072, 576, true},
                               {576, 1536, true}, {768, 2048, true}, {896, 4864, true}};
  if (!options.quick) {
    shapes.insert(shapes.end(), {{160, 96, false},
                                 {960, 576, true},
                                 {6144, 768, true},
                                 {768, 3072, true},
                                 {9728, 896, true},
                                 {151936, 896, true}});
  }
  const std::vector<std::int64_t> rows =
      options.quick ? std::vector<std::int64_t>{1, 2, 3, 4, 6, 8, 11, 12, 13, 32, 64, 256}
                    : std::vector<std::int64_t>{1,  2,  3,  4,  5,  6,  7,   8,   9,    10,  11,
                                                12, 13, 16, 24, 32, 64, 128, 256, 1024, 4096};
  for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
    for (const Shape& shape : shapes) {
      const Weights weights(shape.n, shape.k, type, shape.streamed);
      for (std::int64_t m : rows) {
        if (m * shape.n * shape.k < (std::int64_t{1} << 37)) GemmRow(limits, m, weights);
      }
    }
  }
}

// `count` sequences of `length` positions each, with their pages.
struct AttentionCase {
  std::int64_t count, length, heads, kv_heads, dh;
  Floats q, out, lse, k_pages, v_pages;
  std::vector<std::int32_t> table, positions;
  std::vector<const std::int32_t*> tables;
  KvPages pages;

  AttentionCase(std::int64_t sequences, std::int64_t n, std::int64_t h, std::int64_t kv,
                std::int64_t head_dim, bool decode)
      : count(sequences), length(n), heads(h), kv_heads(kv), dh(head_dim) {
    const std::int64_t pages_each = (n + kKvPageSize - 1) / kKvPageSize;
    const std::size_t page = KvPageFloats(kv, dh);
    const std::int64_t rows = decode ? count : count * n;
    k_pages = v_pages = Values(static_cast<std::int64_t>(page) * pages_each * count);
    pages = {k_pages.data(), v_pages.data(), page};
    table.resize(static_cast<std::size_t>(pages_each * count));
    std::iota(table.begin(), table.end(), 0);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t sequence = decode ? i : i / n;
      tables.push_back(table.data() + sequence * pages_each);
      positions.push_back(static_cast<std::int32_t>(decode ? n - 1 : i % n));
    }
    q = Values(rows * heads * dh);
    out.resize(q.size());
    lse.resize(static_cast<std::size_t>(rows * heads));
  }
  void Run() {
    Attention(static_cast<std::int64_t>(positions.size()), heads, kv_heads, dh, q.data(),
              heads * dh, tables.data(), positions.data(), 0.125f, pages, out.data(), heads * dh,
              lse.data());
  }
  double Flops() const {
    double keys = 0;
    for (std::int32_t p : positions) keys += p + 1;
    return 4.0 * static_cast<double>(heads * dh) * keys;
  }
};

void BenchAttention(const Options& options, const Limits& limits) {
  const auto run = [&](bool decode, std::int64_t count, std::int64_t length, std::int64_t heads,
                       std::int64_t kv_heads, std::int64_t dh) {
    AttentionCase c(count, length, heads, kv_heads, dh, decode);
    const double flops = c.Flops();
    const int calls = std::max(1, static_cast<int>((options.quick ? 1e8 : 5e8) / flops));
    const double seconds = BestSeconds(7,
                                       [&] {
                                         for (int i = 0; i < calls; ++i) c.Run();
                                       }) /
                           calls;
    const double bytes = decode ? 8.0 * static_cast<double>(count * length * kv_heads * dh) : 0;
    Print({{"kernel", decode ? "attention decode" : "attention prefill"},
           {"sequences", count},
           {"positions", length},
           {"heads", heads},
           {"kv_heads", kv_heads},
           {"head_dim", dh},
           {"microseconds", seconds * 1e6},
           {"gflops", 1e-9 * flops / seconds},
           {"arithmetic_fraction", 1e-9 * flops / seconds / limits.gflops},
           {"gigabytes", 1e-9 * bytes / seconds}});
  };
  for (std::int64_t group : {1, 2, 3, 4, 5, 6, 7, 8}) run(true, 32, 256, 2 * group, 2, 64);
  for (std::int64_t length : {20, 40, 60}) run(true, 64, length, 6, 2, 16);  // the quickstart's
  run(true, 32, 512, 14, 2, 64);
  run(true, 32, 512, 9, 3, 64);
  run(true, 8, 2048, 16, 8, 128);
  run(false, 1, 256, 8, 4, 64);
  run(false, 1, 1024, 14, 2, 64);
}

void BenchOther(const Limits& limits) {
  const auto print = [&](const char* name, double flops, double seconds) {
    Print({{"kernel", name},
           {"gflops", 1e-9 * flops / seconds},
           {"arithmetic_fraction", 1e-9 * flops / seconds / limits.gflops}});
  };
  for (const auto& [t, n, k] : {std::tuple{512, 288, 96}, std::tuple{512, 512, 512}}) {
    const Floats x = Values(t * k), dy = Values(t * n);
    Floats dw(static_cast<std::size_t>(n * k));
    const double seconds = BestSeconds(
        20, [&] { GemmAccumulateWeightGrad(t, n, k, dy.data(), n, x.data(), k, dw.data()); });
    print("weight_grad", 2.0 * t * n * k, seconds);
  }
  for (const auto& [t, d, v] : {std::tuple{64, 96, 48}, std::tuple{64, 512, 8192}}) {
    const Floats hidden = Values(t * d), temperature(static_cast<std::size_t>(t), 1.0f);
    const Weights head(v, d, WeightType::kF32, false);
    const std::vector<double> uniform(static_cast<std::size_t>(t), 0.5);
    Floats logprob(static_cast<std::size_t>(t));
    std::vector<std::int32_t> token(static_cast<std::size_t>(t));
    const double seconds = BestSeconds(20, [&] {
      HeadSample(t, d, v, v, hidden.data(), d, head.Copy(0), temperature.data(), uniform.data(),
                 token.data(), logprob.data());
    });
    print("head_sample", 2.0 * t * d * v, seconds);
  }
}

int Run(const Options& options) {
  SetCpuVariant(options.variant);
  const Limits limits{ArithmeticLimit(options.variant), BandwidthLimit(256u << 20)};
  std::cout << "{\"variant\": \"" << CpuVariantName(options.variant)
            << "\", \"arithmetic_limit_gflops\": " << limits.gflops
            << ", \"bandwidth_limit_gigabytes\": " << limits.gigabytes << ", \"rows\": [";
  if (options.only.empty() || options.only == "gemm") BenchGemm(options, limits);
  if (options.only.empty() || options.only == "attention") BenchAttention(options, limits);
  if (options.only.empty() || options.only == "other") BenchOther(limits);
  std::cout << "]}\n";
  return 0;
}

int Usage() {
  std::fprintf(stderr,
               "usage: kernels_bench [--variant NAME] [--only gemm|attention|other] [--quick]\n");
  return 2;
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  using namespace thresher;
  bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") {
      options.quick = true;
    } else if (argument == "--only" && i + 1 < argc) {
      options.only = argv[++i];
    } else if (argument == "--variant" && i + 1 < argc) {
      const std::string name = argv[++i];
      bool known = false;
      for (kernels::CpuVariant v : {kernels::CpuVariant::kPortable, kernels::CpuVariant::kAvx2,
                                    kernels::CpuVariant::kAvx512}) {
        if (name != kernels::CpuVariantName(v) || !kernels::CpuVariantAvailable(v)) continue;
        options.variant = v;
        known = true;
      }
      if (!known) return bench::Usage();
    } else {
      return bench::Usage();
    }
  }
  return bench::Run(options);
}
