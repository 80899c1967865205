#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/training_pass.h"
#include "kernels/cpu/adamw.h"

struct CUstream_st;  // what cudaStream_t points to

namespace thresher::model {

// Master weights, both moments of the optimiser and the sum of a step's gradients in the memory of
// the device whose TrainingPass computes the leaves, so that neither gradients nor weights pass
// through the host. A step: BeginSum; the pass's leaves, in ascending order, each of which adds its
// gradient to the sum and runs under the masters as they are published (rounded to config.dtype);
// the sum's norm; Step. Every number has the bits of the same step on the CPU. All vectors are in
// the flat order of ParameterList, fp32, ParameterCount long.
//
// Every call returns when the device has done it. One owner, the thread of the pass; calls in
// another order end the process. Errors: the device's; kResourceExhausted (its memory).
class ResidentParameters {
 public:
  virtual ~ResidentParameters() = default;

  // Takes the memory of masters and moments, where it is not held, and fills it.
  virtual Status Set(std::span<const float> masters, std::span<const float> first_moment,
                     std::span<const float> second_moment) = 0;
  virtual Status ClearMoments() = 0;
  virtual Status ReadMasters(std::span<float> masters) const = 0;
  virtual Status ReadMoments(std::span<float> first, std::span<float> second) const = 0;
  // The masters in config.dtype, element by element: what is published. Not while there is a sum.
  // Valid until the next call of this or of Release.
  virtual Result<std::span<const std::byte>> ReadPublished() = 0;

  // Room for the sum of `leaves` (2^k) gradients in the fixed tree ((0+1)+(2+3))+...
  virtual Status BeginSum(std::size_t leaves) = 0;
  // The whole sum, on the device, for other ranks' to be added in place, after the work on
  // `stream`, by the time of the next call. scratch: half as long, rounded up.
  struct Sum {
    std::span<float> values, scratch;
    CUstream_st* stream = nullptr;
  };
  virtual Result<Sum> OnDevice() = 0;
  // The same through the host.
  virtual Status ReadSum(std::span<float> sum) const = 0;
  virtual Status WriteSum(std::span<const float> sum) = 0;
  // The sums of squares of the sum's blocks of so many elements (kernels/cpu/square_sum.h).
  virtual Result<std::vector<double>> SquareSums(std::size_t block) = 0;
  // Moves masters and moments by AdamW. `factors.keep` is that of parameters that decay. The sum is
  // gone.
  virtual Status Step(const kernels::AdamWFactors& factors) = 0;
  // The sum is gone, and nothing else has happened.
  virtual void DropSum() = 0;

  // Gives all memory back, and with it the masters and moments, until the next Set. Not while there
  // is a sum.
  virtual void Release() = 0;
};

// What computes a learner's steps on a device. pass null: the CPU; parameters null: they are the
// learner's own, on the host.
struct TrainingDevice {
  std::unique_ptr<TrainingPass> pass;
  std::shared_ptr<ResidentParameters> parameters;
  std::unique_ptr<TrainingPass> critic{};  // another one, without parameters; null: none was wanted
};

}  // namespace thresher::model
