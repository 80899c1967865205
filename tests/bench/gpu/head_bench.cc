// The head with its draw, in the kernel set cpu-fp32-v1 with bf16 weights: limited by reading the
// vocabulary's weights as long as there are few rows.
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/head.h"
#include "tests/bench/gpu/device_fill.h"
#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

constexpr std::int64_t kRows[] = {1, 16, 64};

template <class T>
gpu::DeviceMemory Constant(T value, std::int64_t count) {
  const std::vector<T> values(static_cast<std::size_t>(count), value);
  gpu::DeviceMemory memory = NeedMemory(sizeof(T) * values.size());
  Need(cudaMemcpy(memory.data(), values.data(), sizeof(T) * values.size(), cudaMemcpyHostToDevice),
       "cudaMemcpy");
  return memory;
}

// Scan and draw of t rows; seconds of each run.
std::vector<double> HeadSeconds(Session& session, const BenchShape& shape, std::int64_t t,
                                const gpu::DeviceMemory& weights) {
  cudaStream_t stream = session.meter.stream();
  const auto rows_of = [t](std::int64_t each) { return static_cast<std::size_t>(t * each); };
  const auto hidden = NeedMemory(4 * rows_of(shape.width));
  Need(FillF32(stream, hidden.as<float>(), rows_of(shape.width), 2, 1.0f), "random rows");
  const auto temperature = Constant(1.0f, t), uniform = Constant(0.4, t);
  const auto blocks =
      NeedMemory(sizeof(kernels::HeadBlock) * rows_of(kernels::HeadBlockCount(shape.vocab)));
  const auto logits = NeedMemory(4 * rows_of(shape.vocab));
  const auto token = NeedMemory(4 * rows_of(1)), logprob = NeedMemory(4 * rows_of(1));
  kernels::HeadRows rows;
  rows.t = t, rows.d = shape.width, rows.v = shape.vocab, rows.valid_vocab = shape.vocab;
  rows.hidden = hidden.as<float>(), rows.ldh = shape.width;
  rows.head = {weights.data(), kernels::WeightType::kBf16};
  rows.temperature = temperature.as<float>();
  const kernels::cuda::HeadLogitStore store{logits.as<float>(), shape.vocab, nullptr};
  return session.meter.Time([&](int) {
    auto* found = blocks.as<kernels::HeadBlock>();
    const cudaError_t error = kernels::cuda::HeadScan(stream, rows, nullptr, found, store);
    if (error != cudaSuccess) return error;
    return kernels::cuda::HeadChoose(stream, rows, found, store, uniform.as<double>(),
                                     token.as<std::int32_t>(), logprob.as<float>());
  });
}

}  // namespace

nlohmann::json BenchHead(Session& session) {
  const DeviceLimits limits = MeasureLimits(session);
  nlohmann::json results = nlohmann::json::array();
  for (const BenchShape& shape : kBenchShapes) {
    const std::size_t image =
        kernels::PackedBytes(kernels::WeightType::kBf16, shape.vocab, shape.width);
    const auto weights = NeedMemory(image);
    Need(FillBf16(session.meter.stream(), weights.as<std::uint16_t>(), image / 2, 1, 0.02f),
         "random weights");
    for (std::int64_t t : kRows) {
      const std::string name =
          std::string(shape.name) + ", " + std::to_string(t) + (t == 1 ? " row" : " rows");
      results.push_back(RateOf(name, "GB/s", static_cast<double>(image) / 1e9,
                               HeadSeconds(session, shape, t, weights)));
      AddLimit(results.back(), {"GB/s copied", limits.copy_gbytes});
    }
  }
  return {{"results", results}};
}

}  // namespace thresher::bench
