#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/gpu/handles.h"

// Times of work on a device, by CUDA events around replays of a recorded graph: what launching
// costs the host is not in them.
namespace thresher::bench {

// Ends the program with one line, exit 1: a benchmark has nothing to go on with.
void Need(cudaError_t error, const char* what);
gpu::DeviceMemory NeedMemory(std::size_t bytes);

class Meter {
 public:
  explicit Meter(int runs = 15);

  cudaStream_t stream() const { return stream_.get(); }
  // Seconds of one call of `work`, for each run. A run is a replay of as many calls as take about 2
  // ms, at least one; two replays before them do not count. `work(i)` puts call i on stream(), and
  // can be recorded in a graph; calls that use other memory by turns (i modulo some number) keep it
  // out of the cache.
  std::vector<double> Time(const std::function<cudaError_t(int)>& work);

 private:
  gpu::GraphExec Record(const std::function<cudaError_t(int)>& work, int calls);
  double Replay(const gpu::GraphExec& graph);

  int runs_;
  gpu::Stream stream_;
  gpu::Event begin_, end_;
};

struct Limit {
  std::string name;
  double value;  // in the unit of what it limits
};

// {"name", "unit", "median", "min", "max", "runs"}: amount / seconds, of each run.
nlohmann::json RateOf(const std::string& name, const std::string& unit, double amount,
                      const std::vector<double>& seconds);
// Adds "limit" and "ratio" (of the medians).
void AddLimit(nlohmann::json& row, const Limit& limit);
double MedianOf(std::vector<double> values);

}  // namespace thresher::bench
