#include "common/model/cuda/device_training_head.h"

#include <algorithm>

#include "common/gpu/shared_device.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

kernels::HeadRows DeviceTrainingHead::Rows(const DeviceWeights& weights,
                                           const DeviceHeadRows& from) const {
  kernels::HeadRows rows;
  rows.t = from.count, rows.d = config_.width, rows.v = config_.vocab;
  rows.valid_vocab = weights.valid_vocab();
  rows.hidden = from.hidden, rows.ldh = config_.width;
  rows.head = weights.head().packed;
  rows.temperature = from.temperature;
  return rows;
}

// kBf16: the logits of kHeadGradIds ids exist at once.
cudaError_t DeviceTrainingHead::Scan(const DeviceWeights& weights, DeviceProducts& products,
                                     const kernels::HeadRows& rows, const std::int32_t* target,
                                     cudaStream_t stream) {
  if (set_ == DeviceKernelSet::kFp32) {
    return cuda::HeadScan(stream, rows, target, blocks_.data(), {});
  }
  cudaError_t error = cudaSuccess;
  for (std::int64_t v0 = 0; v0 < rows.valid_vocab && error == cudaSuccess; v0 += kHeadGradIds) {
    const std::int64_t v1 = std::min(rows.valid_vocab, v0 + kHeadGradIds);
    error = products.ProductOf(rows.t, weights.head(), v0, v1, rows.hidden, logits_.data(),
                               kHeadGradIds);
    if (error != cudaSuccess) break;
    error = cuda::HeadScanLogits(stream, rows, target, v0, v1, logits_.data(), kHeadGradIds,
                                 blocks_.data(), {});
  }
  return error;
}

Status DeviceTrainingHead::LogProbs(const DeviceWeights& weights, DeviceProducts& products,
                                    const DeviceHeadRows& all, cudaStream_t stream) {
  const std::int64_t blocks = kernels::HeadBlockCount(weights.valid_vocab());
  const std::int64_t most = std::min(kHeadRows, all.count);
  THRESHER_RETURN_IF_ERROR(gpu::AwaitMemory(patience_, [&] {
    const std::int64_t ids = set_ == DeviceKernelSet::kBf16 ? kHeadGradIds : 0;
    THRESHER_RETURN_IF_ERROR(logits_.Reserve(static_cast<std::size_t>(most * ids)));
    return blocks_.Reserve(static_cast<std::size_t>(most * blocks));
  }));
  for (DeviceArray<float>* column : {&logprob_, &lse_, &entropy_}) {
    THRESHER_RETURN_IF_ERROR(column->Reserve(static_cast<std::size_t>(all.count)));
  }
  Launches launch;
  for (std::int64_t begin = 0; begin < all.count; begin += most) {
    kernels::HeadRows rows = Rows(weights, all);
    rows.t = std::min(most, all.count - begin);
    rows.hidden += begin * rows.ldh;
    rows.temperature += begin;
    const std::int32_t* target = all.target + begin;
    launch("scan of the vocabulary", Scan(weights, products, rows, target, stream));
    launch("log-probabilities",
           cuda::HeadFold(stream, rows, target, blocks_.data(), logprob_.data() + begin,
                          lse_.data() + begin, entropy_.data() + begin));
  }
  return launch.status();
}

Status DeviceTrainingHead::Backward(const DeviceWeights& weights, DeviceProducts& products,
                                    const DeviceHeadRows& rows, const float* dlogprob,
                                    const float* dentropy, float* dhidden, float* dhead,
                                    cudaStream_t stream) {
  const DeviceMatrix& head = weights.head();
  kernels::HeadBackwardArgs args{};
  args.t = rows.count, args.d = config_.width, args.v = config_.vocab;
  args.valid_vocab = weights.valid_vocab();
  args.hidden = rows.hidden, args.ldh = config_.width;
  args.packed_head = head.packed;
  args.packed_head_transposed = head.transposed;
  args.temperature = rows.temperature;
  args.targets = rows.target;
  args.lse = lse_.data();
  args.dlogprob = dlogprob;
  args.entropy = entropy_.data(), args.dentropy = dentropy;
  args.dhidden = dhidden, args.lddh = config_.width;
  args.dhead = dhead;
  if (set_ == DeviceKernelSet::kBf16) return BackwardInParts(head, products, args, stream);
  const std::size_t least = cuda::HeadBackwardLeastScratchBytes(args.t);
  const std::size_t best = cuda::HeadBackwardScratchBytes(args.t, args.valid_vocab);
  THRESHER_RETURN_IF_ERROR(gpu::AwaitMemory(patience_, [&] {
    return scratch_.Reserve(std::min(best, std::max(least, kHeadGradScratch)));
  }));
  return gpu::ToStatus(cuda::HeadBackward(stream, args, scratch_.data(), scratch_.bytes()),
                       "gradient of the head");
}

// Rows in parts of kHeadRows, ascending, so that a weight's chain over tokens goes on; of each the
// vocabulary in parts of kHeadGradIds, ascending, which add up in dhidden.
Status DeviceTrainingHead::BackwardInParts(const DeviceMatrix& head, DeviceProducts& products,
                                           const kernels::HeadBackwardArgs& all,
                                           cudaStream_t stream) {
  static_assert(kHeadRows % 64 == 0, "a chain over tokens is cut between the matrix unit's steps");
  Launches launch;
  for (std::int64_t t0 = 0; t0 < all.t; t0 += kHeadRows) {
    kernels::HeadBackwardArgs args = all;
    args.t = std::min(kHeadRows, all.t - t0);
    args.hidden += t0 * all.ldh, args.dhidden += t0 * all.lddh;
    args.temperature += t0, args.targets += t0, args.lse += t0, args.dlogprob += t0;
    if (args.dentropy != nullptr) args.entropy += t0, args.dentropy += t0;
    for (std::int64_t v0 = 0; v0 < all.valid_vocab; v0 += kHeadGradIds) {
      const std::int64_t v1 = std::min(all.valid_vocab, v0 + kHeadGradIds), n = v1 - v0;
      float* logits = logits_.data();
      launch("logits", products.ProductOf(args.t, head, v0, v1, args.hidden, logits, n));
      launch("gradient of logits", cuda::HeadLogitGrads(stream, args, v0, n, logits, n));
      launch("gradient of the hidden states",
             products.InputGradOf(args.t, head, v0, v1, logits, n, args.dhidden, v0 > 0));
      launch("gradient of the head",
             products.WeightGrad(args.t, n, all.d, logits, n, args.hidden, all.dhead + v0 * all.d));
    }
  }
  return launch.status();
}

void DeviceTrainingHead::Release() {
  logits_ = {};
  blocks_ = {};
  scratch_ = {};
}

}  // namespace thresher::model
