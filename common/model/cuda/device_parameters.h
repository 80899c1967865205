#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <memory>
#include <vector>

#include "common/gpu/handles.h"
#include "common/model/cuda/device_array.h"
#include "common/model/layout.h"
#include "common/model/model_config.h"
#include "common/model/resident_parameters.h"
#include "common/model/weights.h"

namespace thresher::model {

struct DeviceParametersOptions {
  int device = 0;
  std::int32_t valid_vocab = 0;           // see PackedModel::Make
  std::chrono::milliseconds patience{0};  // see CudaTrainingOptions
};

// ResidentParameters on a GPU. Of the 2^k leaves' gradients at most k wait for their siblings, of
// ParameterCount elements each, beside the one that is being computed (GradientSize).
class DeviceParameters final : public ResidentParameters {
 public:
  // Takes no memory yet. Errors: those of gpu::OpenDevice.
  static Result<std::shared_ptr<DeviceParameters>> Make(const ModelConfig& config,
                                                        const DeviceParametersOptions& options);
  ~DeviceParameters() override;

  Status Set(std::span<const float> masters, std::span<const float> first_moment,
             std::span<const float> second_moment) override;
  Status ClearMoments() override;
  Status ReadMasters(std::span<float> masters) const override;
  Status ReadMoments(std::span<float> first, std::span<float> second) const override;
  Result<std::span<const std::byte>> ReadPublished() override;
  Status BeginSum(std::size_t leaves) override;
  Result<Sum> OnDevice() override;
  Status ReadSum(std::span<float> sum) const override;
  Status WriteSum(std::span<const float> sum) override;
  Result<std::vector<double>> SquareSums(std::size_t block) override;
  Status Step(const kernels::AdamWFactors& factors) override;
  void DropSum() override { begun_ = 0; }
  void Release() override;

  // For the pass, which waits for its own stream. The next leaf's gradient, GradientSize zeros by
  // what is put on `stream`; EndLeaf puts its way into the sum there.
  Result<float*> BeginLeaf(cudaStream_t stream);
  Status EndLeaf(cudaStream_t stream);
  const float* masters() const { return masters_.data(); }
  std::uint64_t version() const { return version_; }  // another one when the masters are others
  std::int32_t valid_vocab() const { return options_.valid_vocab; }

 private:
  DeviceParameters(const ModelConfig& config, const DeviceParametersOptions& options);
  Status Send(std::span<const float> from, const DeviceArray<float>& to);
  Status Fetch(const float* from, std::span<float> to) const;
  bool complete() const { return begun_ > 0 && ended_ == begun_; }
  // Where the whole sum is.
  const DeviceArray<float>& root() const { return waiting_.empty() ? leaf_ : waiting_[0]; }

  const ModelConfig config_;
  const DeviceParametersOptions options_;
  const Layout layout_;
  const std::vector<ParameterInfo> parameters_;
  const std::size_t count_;  // of parameters
  gpu::Stream stream_;
  std::uint64_t version_ = 0;
  DeviceArray<float> masters_, first_moment_, second_moment_;
  std::size_t begun_ = 0, ended_ = 0;        // leaves of the sum, and those that are in it
  DeviceArray<float> leaf_;                  // [GradientSize]
  std::vector<DeviceArray<float>> waiting_;  // [k][ParameterCount]: sums that wait, largest first
  DeviceArray<float> scratch_;               // where leaf_ holds the sum itself
  DeviceArray<double> squares_;
  gpu::PinnedMemory published_;
};

}  // namespace thresher::model
