#include "tests/bench/gpu/measure.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace thresher::bench {
namespace {

constexpr double kReplaySeconds = 2e-3;
constexpr int kMostCalls = 256, kUncounted = 2;

[[noreturn]] void End(const std::string& text) {
  std::fprintf(stderr, "gpu_bench: %s\n", text.c_str());
  std::exit(1);
}

template <class T>
T Needed(Result<T> made) {
  if (!made.ok()) End(made.status().message());
  return std::move(made).value();
}

}  // namespace

void Need(cudaError_t error, const char* what) {
  if (error != cudaSuccess) End(std::string(what) + ": " + cudaGetErrorString(error));
}

gpu::DeviceMemory NeedMemory(std::size_t bytes) { return Needed(gpu::MakeDeviceMemory(bytes)); }

Meter::Meter(int runs)
    : runs_(runs),
      stream_(Needed(gpu::MakeStream())),
      begin_(Needed(gpu::MakeEvent(true))),
      end_(Needed(gpu::MakeEvent(true))) {}

gpu::GraphExec Meter::Record(const std::function<cudaError_t(int)>& work, int calls) {
  Need(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "begin of a recording");
  for (int i = 0; i < calls; ++i) Need(work(i), "a launch");
  cudaGraph_t recorded = nullptr;
  Need(cudaStreamEndCapture(stream(), &recorded), "end of a recording");
  const gpu::Graph graph(recorded);
  cudaGraphExec_t made = nullptr;
  Need(cudaGraphInstantiate(&made, graph.get(), 0), "cudaGraphInstantiate");
  return gpu::GraphExec(made);
}

double Meter::Replay(const gpu::GraphExec& graph) {
  Need(cudaEventRecord(begin_.get(), stream()), "cudaEventRecord");
  Need(cudaGraphLaunch(graph.get(), stream()), "cudaGraphLaunch");
  Need(cudaEventRecord(end_.get(), stream()), "cudaEventRecord");
  Need(cudaEventSynchronize(end_.get()), "measured work");
  float milliseconds = 0;
  Need(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()), "cudaEventElapsedTime");
  return milliseconds / 1e3;
}

std::vector<double> Meter::Time(const std::function<cudaError_t(int)>& work) {
  // What is loaded or set up at a first call cannot be recorded.
  Need(work(0), "a launch");
  Need(cudaStreamSynchronize(stream()), "measured work");
  const gpu::GraphExec once = Record(work, 1);
  (void)Replay(once);
  const double wanted = std::round(kReplaySeconds / std::max(Replay(once), 1e-7));
  const int calls = static_cast<int>(std::clamp(wanted, 1.0, double{kMostCalls}));
  const gpu::GraphExec graph = Record(work, calls);
  for (int i = 0; i < kUncounted; ++i) (void)Replay(graph);
  std::vector<double> seconds;
  for (int i = 0; i < runs_; ++i) seconds.push_back(Replay(graph) / calls);
  return seconds;
}

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

nlohmann::json RateOf(const std::string& name, const std::string& unit, double amount,
                      const std::vector<double>& seconds) {
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  return {{"name", name},
          {"unit", unit},
          {"median", amount / MedianOf(seconds)},
          {"min", amount / *most},
          {"max", amount / *least},
          {"runs", seconds.size()},
          {"seconds", MedianOf(seconds)}};
}

void AddLimit(nlohmann::json& row, const Limit& limit) {
  row["limit"] = {{"name", limit.name}, {"median", limit.value}};
  row["ratio"] = row["median"].get<double>() / limit.value;
}

}  // namespace thresher::bench
