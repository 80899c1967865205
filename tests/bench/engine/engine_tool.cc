// engine_tool limits|kernels|strictness JSON: measures and prints one JSON object. Used by run.py.
#include "tests/bench/engine/engine_tool.h"

#include <cstdio>
#include <iostream>

namespace thresher::bench {

PackedWeights::PackedWeights(kernels::WeightType type, std::int64_t n, std::int64_t k,
                             const void* values)
    : type_(type), image_(kernels::PackedBytes(type, n, k) + 64) {
  kernels::PackRows(type, n, k, 0, n, values, const_cast<void*>(matrix().data));
}

kernels::PackedMatrix PackedWeights::matrix() const {
  const auto base = (reinterpret_cast<std::uintptr_t>(image_.data()) + 63) / 64 * 64;
  return {reinterpret_cast<const void*>(base), type_};
}

std::vector<float> SmallValues(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 16) * 0x1p-16f - 0.5f;
  }
  return values;
}

}  // namespace thresher::bench

int main(int argc, char** argv) {
  using namespace thresher::bench;
  const std::string what = argc == 3 ? argv[1] : "";
  if (what != "limits" && what != "kernels" && what != "strictness") {
    std::fprintf(stderr, "usage: engine_tool limits|kernels|strictness JSON\n");
    return 2;
  }
  try {
    const auto request = nlohmann::json::parse(argv[2]);
    std::cout << (what == "limits"    ? MeasureLimits(request)
                  : what == "kernels" ? MeasureKernels(request)
                                      : MeasureStrictness(request))
              << std::endl;
  } catch (const nlohmann::json::exception& error) {
    std::fprintf(stderr, "engine_tool: %s\n", error.what());
    return 2;
  }
  return 0;
}
