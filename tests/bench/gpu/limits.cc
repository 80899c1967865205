#include <algorithm>

#include "tests/bench/gpu/device_fill.h"
#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

using kernels::cuda::Bf16Output;
using kernels::cuda::Bf16Rows;

constexpr std::size_t kCopyBytes = std::size_t{2} << 30;  // far beyond any cache
constexpr std::int64_t kSquare = 8192;

std::vector<double> CopySeconds(Session& session, const gpu::DeviceMemory& from,
                                const gpu::DeviceMemory& to) {
  return session.meter.Time([&](int) {
    return cudaMemcpyAsync(to.data(), from.data(), kCopyBytes, cudaMemcpyDeviceToDevice,
                           session.meter.stream());
  });
}

// Products of a large square by ours and, where there is one, by the library; the rows that were
// measured, the fastest's rate in TFLOP/s.
double MatrixRate(Session& session, std::vector<nlohmann::json>& rows) {
  const std::size_t count = kSquare * kSquare;
  const auto x = NeedMemory(2 * count), w = NeedMemory(2 * count), y = NeedMemory(2 * count);
  cudaStream_t stream = session.meter.stream();
  Need(FillBf16(stream, x.as<std::uint16_t>(), count, 1, 1.0f), "random data");
  Need(FillBf16(stream, w.as<std::uint16_t>(), count, 2, 1.0f), "random data");
  const double tflop = 2.0 * kSquare * kSquare * kSquare / 1e12;
  double best = 0;
  const auto add = [&](const std::string& name, const std::vector<double>& seconds) {
    rows.push_back(RateOf(name, "TFLOP/s", tflop, seconds));
    best = std::max(best, rows.back()["median"].get<double>());
  };
  if (session.without_bf16.empty()) {
    Bf16Output out;
    out.y16 = y.as<std::uint16_t>();
    out.ldy16 = kSquare;
    const Bf16Rows gx{x.as<std::uint16_t>(), kSquare, kSquare, kSquare};
    const Bf16Rows gw{w.as<std::uint16_t>(), kSquare, kSquare, kSquare};
    add("ours, 8192 x 8192 x 8192", session.meter.Time([&](int) {
      return kernels::cuda::GemmBf16(session.bf16, stream, gx, gw, out);
    }));
  }
  if (session.lt && session.lt->Prepare(kSquare, kSquare, kSquare, kSquare, kSquare, kSquare)) {
    add("cuBLASLt, 8192 x 8192 x 8192", session.meter.Time([&](int) {
      return session.lt->Run(stream, x.as<std::uint16_t>(), w.as<std::uint16_t>(),
                             y.as<std::uint16_t>());
    }));
  }
  return best;
}

}  // namespace

Session::Session(gpu::DeviceInfo info)
    : device(std::move(info)), bf16_scratch(NeedMemory(kernels::cuda::kBf16ScratchBytes)) {
  without_bf16 = kernels::cuda::OpenBf16Device(meter.stream(), bf16_scratch.data(),
                                               bf16_scratch.bytes(), &bf16);
  lt = CublasLt::Load(&without_lt);
}

DeviceLimits MeasureLimits(Session& session) {
  DeviceLimits limits;
  const auto from = NeedMemory(kCopyBytes), to = NeedMemory(kCopyBytes);
  cudaStream_t stream = session.meter.stream();
  Need(FillBf16(stream, from.as<std::uint16_t>(), kCopyBytes / 2, 3, 1.0f), "random data");
  limits.rows.push_back(
      RateOf("copy", "GB/s", 2.0 * kCopyBytes / 1e9, CopySeconds(session, from, to)));
  limits.copy_gbytes = limits.rows.back()["median"];
  limits.rows.push_back(RateOf("read", "GB/s", kCopyBytes / 1e9, session.meter.Time([&](int) {
    return ReadAll(stream, from.data(), kCopyBytes, to.as<unsigned>());
  })));
  limits.read_gbytes = limits.rows.back()["median"];
  std::vector<nlohmann::json> products;
  limits.matrix_tflops = MatrixRate(session, products);
  if (limits.matrix_tflops > 0) {
    nlohmann::json best =
        *std::max_element(products.begin(), products.end(),
                          [](const auto& a, const auto& b) { return a["median"] < b["median"]; });
    best["name"] = "matrix products, bf16";
    limits.rows.push_back(best);
  }
  limits.rows.insert(limits.rows.end(), products.begin(), products.end());
  return limits;
}

nlohmann::json BenchLimits(Session& session) { return {{"results", MeasureLimits(session).rows}}; }

}  // namespace thresher::bench
