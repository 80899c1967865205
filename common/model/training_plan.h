#pragma once

#include <cstddef>
#include <cstdint>

#include "common/model/device_plan.h"

namespace thresher::model {

// Where the memory of a training device goes, in bytes: what CudaTrainingPass takes for
// micro-batches of a size, and ResidentParameters. Pure, like device_plan.h.
struct TrainingPlan {
  std::size_t weights = 0;    // the policy's, of kFp32 with the transposes
  std::size_t reference = 0;  // those of the policy that the penalty compares with
  std::size_t gradient = 0;   // of a leaf, and sums of leaves that wait for others
  std::size_t parameters = 0;  // master weights and moments
  std::size_t activations = 0;
  std::size_t kv = 0;
  std::size_t scratch = 0;  // of the backward pass, products, the head; staging of weights
  std::size_t total() const {
    return weights + reference + gradient + parameters + activations + kv + scratch;
  }
};

struct TrainingPlanOptions {
  DeviceKernelSet set = DeviceKernelSet::kFp32;
  std::int64_t rows = 1;       // tokens of the largest micro-batch
  std::int64_t sequences = 1;  // that it may hold: each may leave most of a KV page empty
  bool recompute = false;      // learner.recompute_activations
  bool reference = false;      // there is a reference policy
  // The parameters are on the device (ResidentParameters), with the sum of so many leaves, which is
  // added up over ranks there or not. 0: on the host.
  std::int64_t resident_leaves = 0;
  bool ranks = false;
};

TrainingPlan PlanTraining(const ModelConfig& config, const TrainingPlanOptions& options);

}  // namespace thresher::model
