// Products of the kernel set cuda-bf16-sm90-v1 at the shapes of models, and what strictness costs
// against the library's heuristics: at decode's numbers of tokens the limit is reading the weights,
// at prefill's the matrix rate.
#include <algorithm>

#include "tests/bench/gpu/device_fill.h"
#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

using kernels::cuda::Bf16Output;
using kernels::cuda::Bf16Rows;

constexpr std::int64_t kTokens[] = {1, 16, 64, 256, 2048};
constexpr std::int64_t kDecodeTokens = 256;  // up to here the weights are the limit
// Weights that are used in turn, more than an H200's 60 MB of cache.
constexpr std::size_t kTurnBytes = std::size_t{256} << 20;
constexpr int kMostTurns = 64;

struct Product {
  const char* name;
  std::int64_t n, k, count;  // of a token
};

std::vector<Product> ProductsOf(const BenchShape& s) {
  const std::int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  return {{"qkv", q + 2 * kv, s.width, s.layers},
          {"attention out", s.width, q, s.layers},
          {"gate and up", 2 * s.ffn_width, s.width, s.layers},
          {"down", s.width, s.ffn_width, s.layers},
          {"head", s.vocab, s.width, 1}};
}

// Median seconds of one product by each; 0 where it was not measured.
struct Pair {
  double ours = 0, library = 0;
};

Pair Measure(Session& session, std::int64_t t, const Product& p,
             std::vector<nlohmann::json>& details, const std::string& name) {
  const std::size_t weights = static_cast<std::size_t>(p.n * p.k);
  const int turns =
      static_cast<int>(std::clamp<std::size_t>(kTurnBytes / (2 * weights) + 1, 1, kMostTurns));
  const auto w = NeedMemory(2 * weights * static_cast<std::size_t>(turns));
  const auto x = NeedMemory(2 * static_cast<std::size_t>(t * p.k));
  const auto y = NeedMemory(2 * static_cast<std::size_t>(t * p.n));
  cudaStream_t stream = session.meter.stream();
  Need(FillBf16(stream, w.as<std::uint16_t>(), weights * static_cast<std::size_t>(turns), 1, 1.0f),
       "random weights");
  Need(FillBf16(stream, x.as<std::uint16_t>(), static_cast<std::size_t>(t * p.k), 2, 1.0f),
       "random rows");
  const auto matrix = [&](int i) {
    return w.as<std::uint16_t>() + static_cast<std::size_t>(i % turns) * weights;
  };
  const double gbytes = 2.0 * static_cast<double>(weights) / 1e9;
  Pair pair;
  const auto add = [&](const char* system, const std::vector<double>& seconds) {
    details.push_back(RateOf(name + ", " + p.name + ", " + system, "GB/s", gbytes, seconds));
    return MedianOf(seconds);
  };
  Bf16Output out;
  out.y16 = y.as<std::uint16_t>();
  out.ldy16 = p.n;
  const Bf16Rows rows{x.as<std::uint16_t>(), t, p.k, p.k};
  pair.ours = add("ours", session.meter.Time([&](int i) {
    return kernels::cuda::GemmBf16(session.bf16, stream, rows, {matrix(i), p.n, p.k, p.k}, out);
  }));
  if (session.lt && session.lt->Prepare(t, p.n, p.k, p.k, p.k, p.n)) {
    pair.library = add("cuBLASLt", session.meter.Time([&](int i) {
      return session.lt->Run(stream, x.as<std::uint16_t>(), matrix(i), y.as<std::uint16_t>());
    }));
  }
  return pair;
}

// All products of `t` tokens in a model: one row. A prefill's head is for its last token alone, so
// it is left out there.
nlohmann::json RowOf(Session& session, const DeviceLimits& limits, const BenchShape& shape,
                     std::int64_t t, std::vector<nlohmann::json>& details) {
  const std::string name =
      std::string(shape.name) + ", " + std::to_string(t) + (t == 1 ? " token" : " tokens");
  double ours = 0, library = 0, weights = 0;
  bool all = true;
  for (const Product& p : ProductsOf(shape)) {
    if (t > kDecodeTokens && p.count == 1) continue;
    const Pair pair = Measure(session, t, p, details, name);
    const double count = static_cast<double>(p.count);
    ours += count * pair.ours;
    library += count * pair.library;
    weights += count * static_cast<double>(p.n * p.k);
    all &= pair.library > 0;
  }
  nlohmann::json row;
  if (t <= kDecodeTokens) {
    row = RateOf(name, "GB/s of weights", 2 * weights / 1e9, {ours});
    AddLimit(row, {"GB/s copied", limits.copy_gbytes});
  } else {
    row = RateOf(name, "TFLOP/s", 2 * weights * static_cast<double>(t) / 1e12, {ours});
    if (limits.matrix_tflops > 0) AddLimit(row, {"TFLOP/s", limits.matrix_tflops});
  }
  if (all) {
    row["against"] = {{"name", "cuBLASLt"}, {"price", ours / library - 1}, {"seconds", library}};
  }
  return row;
}

}  // namespace

nlohmann::json BenchGemm(Session& session) {
  nlohmann::json out = {{"results", nlohmann::json::array()}, {"notes", nlohmann::json::array()}};
  if (!session.without_bf16.empty()) {
    out["notes"].push_back("not measured: " + session.without_bf16);
    return out;
  }
  out["notes"].push_back(session.lt ? "cuBLASLt: " + session.lt->path()
                                    : "strictness not measured: " + session.without_lt);
  const DeviceLimits limits = MeasureLimits(session);
  std::vector<nlohmann::json> details;
  for (const BenchShape& shape : kBenchShapes) {
    for (std::int64_t t : kTokens) {
      out["results"].push_back(RowOf(session, limits, shape, t, details));
    }
  }
  out["details"] = details;
  return out;
}

}  // namespace thresher::bench
