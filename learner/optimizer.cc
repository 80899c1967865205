#include "learner/optimizer.h"

#include "learner/device_optimizer.h"
#include "learner/host_optimizer.h"

namespace thresher::learner {

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                                         model::TrainingDevice device) {
  if (device.parameters != nullptr) {
    return std::make_unique<DeviceOptimizer>(options, std::move(device));
  }
  return std::make_unique<HostOptimizer>(options, workers, std::move(device.pass));
}

}  // namespace thresher::learner
