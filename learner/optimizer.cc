#include "learner/optimizer.h"

#include "common/base/check.h"
#include "learner/device_optimizer.h"
#include "learner/host_optimizer.h"

namespace thresher::learner {

Status Optimizer::Adapt(AdapterState) {
  return FailedPrecondition("this optimiser trains no adapters");
}

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                                         model::TrainingDevice device) {
  if (device.parameters != nullptr) {
    THRESHER_CHECK(options.trained.frozen.empty() && !options.trained.lora,
                   "a device whose parameters are all trained");
    return std::make_unique<DeviceOptimizer>(options, std::move(device));
  }
  return std::make_unique<HostOptimizer>(options, workers, std::move(device.pass));
}

}  // namespace thresher::learner
