// gpu_bench SECTION: measures one part of the CUDA backend on device 0, JSON on standard output.
//   device            which device, what was compiled for it
//   limits            its own bandwidth and matrix rate
//   gemm, attention, head
//   training MODEL    a leaf of the learner: 0.5B or 1.5B
// Exit codes: 0; 1 a measurement failed; 2 no such section; 3 no device that can be used.
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/gpu/session.h"

namespace thresher::bench {
namespace {

using Section = nlohmann::json (*)(Session&);

nlohmann::json DeviceRow(const gpu::DeviceInfo& device) {
  const gpu::Versions versions = gpu::CudaVersions();
  return {{"name", device.name},
          {"capability", std::to_string(device.major) + "." + std::to_string(device.minor)},
          {"bytes", device.total_bytes},
          {"multiprocessors", device.multiprocessors},
          {"runtime", versions.runtime},
          {"driver", versions.driver},
          {"architectures", gpu::BuiltArchitectures()}};
}

// What the words ask for; empty: nothing there is.
std::function<nlohmann::json(Session&)> SectionOf(const std::vector<std::string>& words) {
  static const std::map<std::string, Section> sections = {{"limits", BenchLimits},
                                                          {"gemm", BenchGemm},
                                                          {"attention", BenchAttention},
                                                          {"head", BenchHead}};
  if (words.size() == 1 && sections.contains(words[0])) return sections.at(words[0]);
  if (words.size() != 2 || words[0] != "training") return {};
  for (const BenchShape& shape : {kBenchShapes[0], kBenchShapes[1]}) {
    if (words[1] == shape.name) {
      return [shape](Session& session) { return BenchTraining(session, shape); };
    }
  }
  return {};
}

int Run(const std::vector<std::string>& words) {
  const bool only_device = words == std::vector<std::string>{"device"};
  const auto section = SectionOf(words);
  if (!section && !only_device) {
    std::fprintf(
        stderr, "usage: gpu_bench device|limits|gemm|attention|head|training 0.5B|training 1.5B\n");
    return 2;
  }
  const auto device = gpu::OpenDevice(0);
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.status().message().c_str());
    return 3;
  }
  nlohmann::json out = DeviceRow(*device);
  if (section) {
    Session session(*device);
    out = section(session);
    out["device"] = DeviceRow(*device);
  }
  std::printf("%s\n", out.dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  return thresher::bench::Run(std::vector<std::string>(argv + 1, argv + argc));
}
