#include "common/model/cuda/device_head.h"

#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/rows.h"

namespace thresher::model {

namespace cuda = kernels::cuda;

Result<DeviceHead> DeviceHead::Make(const ModelConfig& config, DeviceKernelSet set,
                                    std::int32_t slots, int pieces) {
  DeviceHead head;
  head.config_ = config;
  const auto count = static_cast<std::size_t>(slots);
  const std::size_t floats = count * static_cast<std::size_t>(config.width);
  const auto blocks = static_cast<std::size_t>(kernels::HeadBlockCount(config.vocab));
  THRESHER_RETURN_IF_ERROR(head.selected_.Reserve(floats));
  THRESHER_RETURN_IF_ERROR(head.hidden_.Reserve(floats));
  THRESHER_RETURN_IF_ERROR(head.logprob_.Reserve(count));
  THRESHER_RETURN_IF_ERROR(head.token_.Reserve(count));
  THRESHER_RETURN_IF_ERROR(head.blocks_.Reserve(count * blocks));
  if (set == DeviceKernelSet::kBf16) {
    THRESHER_RETURN_IF_ERROR(head.logits_.Reserve(count * static_cast<std::size_t>(config.vocab)));
  }
  for (int i = 0; i < pieces; ++i) {
    Piece piece;
    THRESHER_ASSIGN_OR_RETURN(piece.tokens, gpu::MakePinnedMemory(count * sizeof(std::int32_t)));
    THRESHER_ASSIGN_OR_RETURN(piece.logprobs, gpu::MakePinnedMemory(count * sizeof(float)));
    head.pieces_.push_back(std::move(piece));
  }
  return head;
}

// kFp32: logits exist within a block of the vocabulary alone. kBf16: the product of all drawn rows
// leaves them whole, and both kinds of draw work on them.
void DeviceHead::Draw(const DeviceWeights& weights, DeviceProducts& products,
                      const DeviceDraws& draws, const cuda::HeadLogitStore& store,
                      cudaStream_t stream, Launches& launch) {
  kernels::HeadRows rows;
  rows.t = draws.count, rows.d = config_.width, rows.v = config_.vocab;
  rows.valid_vocab = weights.valid_vocab();
  rows.hidden = hidden_.data(), rows.ldh = config_.width;
  rows.head = weights.head().packed;
  rows.temperature = draws.temperature;
  cuda::HeadLogitStore kept = store;
  if (products.set() == DeviceKernelSet::kFp32) {
    launch("scan of the vocabulary", cuda::HeadScan(stream, rows, nullptr, blocks_.data(), store));
  } else {
    const std::int64_t ld = config_.vocab;
    launch("logits", products.ProductOf(draws.count, weights.head(), 0, rows.valid_vocab,
                                        hidden_.data(), logits_.data(), ld));
    launch("scan of the vocabulary",
           cuda::HeadScanLogits(stream, rows, nullptr, 0, rows.valid_vocab, logits_.data(), ld,
                                blocks_.data(), store));
    kept = {logits_.data(), ld, nullptr};
  }
  launch("draws", cuda::HeadChoose(stream, rows, blocks_.data(), kept, draws.uniform, token_.data(),
                                   logprob_.data()));
}

Status DeviceHead::Put(const DeviceWeights& weights, DeviceProducts& products,
                       const DeviceDraws& draws, const float* residual, std::int32_t* last,
                       const StepInput* step, int piece, cudaStream_t stream) {
  const std::int64_t width = config_.width;
  FilteredDraws& filtered = pieces_[static_cast<std::size_t>(piece)].filtered;
  cuda::HeadLogitStore store;
  if (step != nullptr) {
    THRESHER_ASSIGN_OR_RETURN(store, filtered.Begin(step->draws, weights.valid_vocab(), stream));
  }
  Launches launch;
  launch("rows to be drawn", cuda::SelectRows(stream, draws.count, width, draws.row, residual,
                                              width, selected_.data()));
  launch("final norm",
         cuda::RmsNormForward(stream, draws.count, width, selected_.data(), weights.final_norm(),
                              static_cast<float>(config_.norm_eps), hidden_.data(), nullptr));
  Draw(weights, products, draws, store, stream, launch);
  launch("tokens",
         cuda::StoreTokens(stream, draws.count, draws.slot, token_.data(), draws.stop, last));
  THRESHER_RETURN_IF_ERROR(launch.status());
  return step != nullptr ? filtered.Put(blocks_.data(), stream) : Status::Ok();
}

Status DeviceHead::PutResults(std::int32_t draws, int piece, cudaStream_t stream) {
  const Piece& to = pieces_[static_cast<std::size_t>(piece)];
  const auto count = static_cast<std::size_t>(draws);
  Launches launch;
  launch("copy of tokens",
         cudaMemcpyAsync(to.tokens.data(), token_.data(), count * sizeof(std::int32_t),
                         cudaMemcpyDeviceToHost, stream));
  launch("copy of log-probabilities",
         cudaMemcpyAsync(to.logprobs.data(), logprob_.data(), count * sizeof(float),
                         cudaMemcpyDeviceToHost, stream));
  return launch.status();
}

std::vector<RowSample> DeviceHead::Results(const std::vector<StepDraw>& draws, int piece) const {
  const Piece& from = pieces_[static_cast<std::size_t>(piece)];
  std::vector<RowSample> samples(draws.size());
  bool filtered = false;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    samples[i].token = from.tokens.as<std::int32_t>()[i];
    samples[i].logprob = from.logprobs.as<float>()[i];
    filtered |= NeedsLogits(draws[i].sampling);
  }
  if (filtered) from.filtered.Take(samples);
  return samples;
}

}  // namespace thresher::model
