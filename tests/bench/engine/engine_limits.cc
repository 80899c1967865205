#include <barrier>
#include <thread>

#include "tests/bench/engine/engine_bf16_limits.h"
#include "tests/bench/engine/engine_tool.h"
#include "tests/bench/kernels_limits.h"

namespace thresher::bench {
namespace {

constexpr std::size_t kStreamBytes = std::size_t{192} << 20;  // of each thread

// The sum of what `count` threads reach together.
template <class Measure>
double Together(int count, const Measure& measure) {
  std::vector<double> rates(static_cast<std::size_t>(count));
  std::barrier start(count);
  {
    std::vector<std::jthread> threads;
    for (double& rate : rates) {
      threads.emplace_back([&] {
        start.arrive_and_wait();
        rate = measure();
      });
    }
  }
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

}  // namespace

nlohmann::json MeasureLimits(const nlohmann::json& request) {
  using kernels::KernelSet;
  const kernels::CpuVariant variant = kernels::BestCpuVariant();
  nlohmann::json out = {{"variant", kernels::CpuVariantName(variant)}, {"limits", {}}};
  for (int threads : request.at("threads").get<std::vector<int>>()) {
    nlohmann::json& limits = out["limits"][std::to_string(threads)];
    limits["read_gbytes_per_s"] = Together(threads, [] { return BandwidthLimit(kStreamBytes); });
    limits[kernels::KernelSetName(KernelSet::kFp32)] =
        Together(threads, [&] { return ArithmeticLimit(variant); });
    if (kernels::KernelSetNative(KernelSet::kBf16Dot)) {
      limits[kernels::KernelSetName(KernelSet::kBf16Dot)] = Together(threads, Bf16DotLimit);
    }
    if (kernels::KernelSetNative(KernelSet::kBf16Amx)) {
      limits[kernels::KernelSetName(KernelSet::kBf16Amx)] = Together(threads, Bf16AmxLimit);
    }
  }
  return out;
}

}  // namespace thresher::bench
