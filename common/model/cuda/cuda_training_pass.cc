#include "common/model/cuda/cuda_training_pass.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "common/base/check.h"
#include "common/gpu/device.h"
#include "common/gpu/shared_device.h"
#include "common/model/cuda/device_backward.h"
#include "common/model/cuda/device_training_head.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/value_head.h"

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

constexpr auto kPageSize = static_cast<std::int32_t>(kernels::kKvPageSize);

class CudaTrainingPass final : public TrainingPass {
 public:
  CudaTrainingPass(const ModelConfig& config, const CudaTrainingOptions& options)
      : config_(config),
        options_(options),
        layout_(MakeLayout(config)),
        head_(config, options.set, options.patience) {
    tapes_[1].kind = TapeKind::kLayerInputs;
  }
  ~CudaTrainingPass() override {
    if (stream_) (void)cudaStreamSynchronize(stream_.get());
  }
  Status Prepare() {
    THRESHER_ASSIGN_OR_RETURN(stream_, gpu::MakeStream());
    THRESHER_ASSIGN_OR_RETURN(
        products_, DeviceProducts::Make(config_, {options_.set, true, options_.self_test_batches},
                                        stream_.get()));
    return Status::Ok();
  }

  Status BeginLeaf(std::shared_ptr<const PackedModel> policy, std::span<float> gradient) override;
  Result<std::vector<float>> ReferenceLogProbs(std::shared_ptr<const PackedModel> reference,
                                               const TrainRows& rows) override;
  Result<LogProbResult> LogProbs(const TrainRows& rows, bool recompute) override;
  Status Backward(std::span<const float> dlogprob, std::span<const float> dentropy) override;
  Status Hidden(const TrainRows& rows, std::optional<TapeKind> tape) override;
  Result<std::vector<float>> Values(std::span<const float> head) override;
  Status ValueBackward(const ValueGradient& gradient) override;
  Status EndLeaf() override;
  void Release() override;
  bool NeedsTransposes() const override { return options_.set == DeviceKernelSet::kFp32; }

 private:
  // What `take` reserves; where the device is shared, it is waited for.
  Status Take(const std::function<Status()>& take) const {
    return gpu::AwaitMemory(options_.patience, take);
  }
  Status TakeModel();
  // The weights of the leaf that begins.
  Status TakeWeights(std::shared_ptr<const PackedModel> policy);
  Status TakeResidentWeights();
  // The rows on the device, with pages for their sequences, counted up.
  Status Place(const TrainRows& rows);
  // The head of a critic.
  Status SendHead(std::span<const float> head);
  Status HeadBackward(std::span<const float> dlogprob, std::span<const float> dentropy);
  // Its gradient for the rows that were placed last, of which dvalue_ is there.
  kernels::ValueHeadBackwardArgs HeadArgs() const;
  // `from` lives until the stream has been waited for.
  template <class T>
  Status Send(const std::vector<T>& from, DeviceArray<T>& to) {
    THRESHER_RETURN_IF_ERROR(to.Reserve(from.size()));
    return gpu::ToStatus(cudaMemcpyAsync(to.data(), from.data(), from.size() * sizeof(T),
                                         cudaMemcpyHostToDevice, stream_.get()),
                         "copy of rows");
  }
  Result<std::vector<float>> Fetch(const DeviceArray<float>& from) const;
  // taped: `tape` is filled; else it lends the room of a layer.
  Status Forward(const DeviceWeights& weights, DeviceTape& tape, bool taped);
  // The placed rows as the head takes them.
  DeviceHeadRows HeadRows() const {
    return {rows_.paged.t, hidden_.data(), temperature_.data(), target_.data()};
  }
  DeviceForward Pass(const DeviceWeights& weights) {
    return DeviceForward(weights, products_, rows_, kv_, kNoScratch, stream_.get());
  }

  static constexpr cuda::AttentionScratch kNoScratch{};

  const ModelConfig config_;
  const CudaTrainingOptions options_;
  const Layout layout_;
  gpu::Stream stream_;
  DeviceProducts products_;
  std::unique_ptr<DeviceWeights> policy_weights_, reference_weights_;
  DeviceArray<std::byte> staging_;                       // of both
  std::weak_ptr<const PackedModel> policy_, reference_;  // whose weights those are
  std::shared_ptr<const PackedModel> policy_read_;       // until its copy is done
  bool in_leaf_ = false;
  std::span<float> gradient_;           // of the leaf, on the host; or in options_.parameters
  DeviceArray<float> device_gradient_;  // of the leaf, unless there
  float* leaf_gradient_ = nullptr;      // where it is on the device
  std::uint64_t packed_version_ = 0;    // of options_.parameters: whose weights those are
  // One for each kind; of the other one a run uses at most the room of a layer, for the reference.
  std::array<DeviceTape, 2> tapes_;
  DeviceTape* tape_ = nullptr;  // of the last LogProbs
  DeviceKv kv_;
  DeviceBackwardScratch scratch_;
  // Of the host, until their copies are done.
  struct Placed {
    std::vector<std::int32_t> sequence, begin, table;
  } placed_;
  std::vector<float> dlogprob_sent_, dentropy_sent_;
  std::vector<float> value_head_sent_, dvalue_head_sent_, dvalue_sent_;
  // The rows that were placed last, and what they have.
  DeviceRows rows_;
  cuda::Sequences sequences_;
  DeviceArray<std::int32_t> token_, position_, sequence_, table_, begin_, target_;
  DeviceArray<float> temperature_, hidden_, dhidden_, dlogprob_, dentropy_;
  DeviceTrainingHead head_;
  // Of a critic.
  DeviceArray<float> value_head_, dvalue_head_;  // [D + 1]
  DeviceArray<float> value_, dvalue_;            // [T]
  bool value_gradient_ = false;                  // dvalue_ is for the next Backward
};

Status CudaTrainingPass::BeginLeaf(std::shared_ptr<const PackedModel> policy,
                                   std::span<float> gradient) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  const bool resident = options_.parameters != nullptr;
  const bool none = gradient.empty();
  THRESHER_CHECK(!in_leaf_ && (none || (!resident && gradient.size() == GradientSize(config_))),
                 "a leaf within a leaf, or the gradient of another model");
  THRESHER_RETURN_IF_ERROR(Take([this] { return TakeModel(); }));
  THRESHER_RETURN_IF_ERROR(resident ? TakeResidentWeights() : TakeWeights(std::move(policy)));
  in_leaf_ = true;
  gradient_ = gradient;
  if (resident) {
    THRESHER_ASSIGN_OR_RETURN(leaf_gradient_, options_.parameters->BeginLeaf(stream_.get()));
    return Status::Ok();
  }
  leaf_gradient_ = device_gradient_.data();
  return gpu::ToStatus(
      cudaMemsetAsync(device_gradient_.data(), 0, device_gradient_.bytes(), stream_.get()),
      "clearing of a gradient");
}

Status CudaTrainingPass::TakeWeights(std::shared_ptr<const PackedModel> policy) {
  if (policy == policy_.lock()) return Status::Ok();
  THRESHER_CHECK(!NeedsTransposes() || PackedWeights::Of(*policy).with_backward(),
                 "model was packed without a backward pass");
  THRESHER_RETURN_IF_ERROR(
      policy_weights_->Upload(PackedWeights::Of(*policy), staging_, stream_.get()));
  policy_ = policy;
  policy_read_ = std::move(policy);
  return Status::Ok();
}

Status CudaTrainingPass::TakeResidentWeights() {
  const DeviceParameters& from = *options_.parameters;
  if (packed_version_ == from.version()) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(
      policy_weights_->Pack(from.masters(), from.valid_vocab(), stream_.get()));
  packed_version_ = from.version();
  return Status::Ok();
}

Status CudaTrainingPass::TakeModel() {
  if (policy_weights_ == nullptr) {
    THRESHER_ASSIGN_OR_RETURN(policy_weights_, DeviceWeights::Make(config_, options_.set, true));
  }
  THRESHER_RETURN_IF_ERROR(staging_.Reserve(WeightStagingBytes(config_, options_.set)));
  if (options_.parameters != nullptr) return Status::Ok();
  return device_gradient_.Reserve(GradientSize(config_));
}

void CudaTrainingPass::Release() {
  THRESHER_CHECK(!in_leaf_, "memory given back within a leaf");
  (void)gpu::UseDevice(options_.device);
  (void)cudaStreamSynchronize(stream_.get());
  policy_weights_.reset(), reference_weights_.reset();
  policy_.reset(), reference_.reset();
  staging_ = {};
  packed_version_ = 0;
  device_gradient_ = {};
  for (DeviceTape& tape : tapes_) tape.layers.clear(), tape.residual.clear();
  kv_ = {};
  scratch_ = {};
  products_.Release();
  hidden_ = {}, dhidden_ = {};
  head_.Release();
}

Status CudaTrainingPass::Place(const TrainRows& rows) {
  const std::size_t count = rows.size();
  auto& [sequence, begin, table] = placed_;
  sequence.clear(), begin.clear(), table.clear();
  std::int32_t longest = 0, pages = 0;
  for (std::size_t t = 0; t < count; ++t) {
    if (rows.position[t] == 0) begin.push_back(static_cast<std::int32_t>(t));
    sequence.push_back(static_cast<std::int32_t>(begin.size()) - 1);
    longest = std::max(longest, rows.position[t] + 1);
    pages += rows.position[t] % kPageSize == 0 ? 1 : 0;
  }
  begin.push_back(static_cast<std::int32_t>(count));
  const std::int32_t pages_each = (longest + kPageSize - 1) / kPageSize;
  table.resize((begin.size() - 1) * static_cast<std::size_t>(pages_each));
  std::int32_t page = 0;
  for (std::size_t t = 0; t < count; ++t) {
    if (rows.position[t] % kPageSize != 0) continue;
    table[static_cast<std::size_t>(sequence[t] * pages_each + rows.position[t] / kPageSize)] =
        page++;
  }
  THRESHER_RETURN_IF_ERROR(Send(rows.token, token_));
  THRESHER_RETURN_IF_ERROR(Send(rows.position, position_));
  THRESHER_RETURN_IF_ERROR(Send(rows.target, target_));
  THRESHER_RETURN_IF_ERROR(Send(rows.temperature, temperature_));
  THRESHER_RETURN_IF_ERROR(Send(sequence, sequence_));
  THRESHER_RETURN_IF_ERROR(Send(table, table_));
  THRESHER_RETURN_IF_ERROR(Send(begin, begin_));
  if (kv_.pages() < pages) {
    kv_ = DeviceKv();  // first: both together might not fit
    THRESHER_RETURN_IF_ERROR(Take([&]() -> Status {
      THRESHER_ASSIGN_OR_RETURN(kv_, DeviceKv::Make(config_, options_.set, pages));
      return Status::Ok();
    }));
  }
  rows_.token = token_.data();
  rows_.paged = {static_cast<std::int64_t>(count), position_.data(), table_.data(), pages_each,
                 sequence_.data()};
  rows_.max_positions = longest;
  sequences_ = {static_cast<std::int64_t>(begin.size()) - 1, begin_.data(), longest};
  return Status::Ok();
}

Status CudaTrainingPass::Forward(const DeviceWeights& weights, DeviceTape& tape, bool taped) {
  const auto count = static_cast<std::size_t>(rows_.paged.t);
  THRESHER_RETURN_IF_ERROR(Take([&] {
    THRESHER_RETURN_IF_ERROR(taped ? tape.Reserve(config_, count)
                                   : tape.ReserveUntaped(config_, count));
    THRESHER_RETURN_IF_ERROR(scratch_.Reserve(config_, options_.set, count));
    THRESHER_RETURN_IF_ERROR(products_.Reserve(config_, count));
    THRESHER_RETURN_IF_ERROR(dhidden_.Reserve(count * static_cast<std::size_t>(config_.width)));
    return hidden_.Reserve(count * static_cast<std::size_t>(config_.width));
  }));
  DeviceForward forward = Pass(weights);
  const auto input = [&](int layer) { return tape.input(taped ? layer : 0); };
  forward.Embed(input(0));
  for (int layer = 0; layer < config_.layers; ++layer) {
    forward.Layer(layer, input(layer), tape.layer(taped ? layer : 0), scratch_.activated.data(),
                  input(layer + 1), taped);
  }
  THRESHER_RETURN_IF_ERROR(forward.status());
  return gpu::ToStatus(
      cuda::RmsNormForward(stream_.get(), rows_.paged.t, config_.width, input(config_.layers),
                           weights.final_norm(), static_cast<float>(config_.norm_eps),
                           hidden_.data(), taped ? tape.final_inv_rms.data() : nullptr),
      "final norm");
}

Result<std::vector<float>> CudaTrainingPass::Fetch(const DeviceArray<float>& from) const {
  std::vector<float> to(static_cast<std::size_t>(rows_.paged.t));
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaMemcpyAsync(to.data(), from.data(), to.size() * sizeof(float),
                                    cudaMemcpyDeviceToHost, stream_.get()),
                    "copy of log-probabilities"));
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "log-probabilities"));
  return to;
}

Result<std::vector<float>> CudaTrainingPass::ReferenceLogProbs(
    std::shared_ptr<const PackedModel> reference, const TrainRows& rows) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(Take([this]() -> Status {
    if (reference_weights_ != nullptr) return Status::Ok();
    THRESHER_ASSIGN_OR_RETURN(reference_weights_,
                              DeviceWeights::Make(config_, options_.set, false));
    return Status::Ok();
  }));
  if (reference != reference_.lock()) {
    THRESHER_RETURN_IF_ERROR(
        reference_weights_->Upload(PackedWeights::Of(*reference), staging_, stream_.get()));
    reference_ = reference;
  }
  THRESHER_RETURN_IF_ERROR(Place(rows));
  THRESHER_RETURN_IF_ERROR(Forward(*reference_weights_, tapes_[1], false));
  THRESHER_RETURN_IF_ERROR(
      head_.LogProbs(*reference_weights_, products_, HeadRows(), stream_.get()));
  return Fetch(head_.logprob());
}

Result<LogProbResult> CudaTrainingPass::LogProbs(const TrainRows& rows, bool recompute) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(in_leaf_, "rows outside a leaf");
  THRESHER_CHECK(rows.filter.empty() && !rows.within_support, "supports are found on CPUs");
  for (std::int32_t target : rows.target) {
    THRESHER_CHECK(target >= 0 && target < policy_weights_->valid_vocab(), "target is no valid id");
  }
  THRESHER_RETURN_IF_ERROR(Place(rows));
  tape_ = &tapes_[recompute ? 1 : 0];
  THRESHER_RETURN_IF_ERROR(Forward(*policy_weights_, *tape_, true));
  THRESHER_RETURN_IF_ERROR(head_.LogProbs(*policy_weights_, products_, HeadRows(), stream_.get()));
  LogProbResult result;
  THRESHER_ASSIGN_OR_RETURN(result.logprob, Fetch(head_.logprob()));
  THRESHER_ASSIGN_OR_RETURN(result.lse, Fetch(head_.lse()));
  THRESHER_ASSIGN_OR_RETURN(result.entropy, Fetch(head_.entropy()));
  return result;
}

Status CudaTrainingPass::Hidden(const TrainRows& rows, std::optional<TapeKind> tape) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(in_leaf_, "rows outside a leaf");
  THRESHER_RETURN_IF_ERROR(Place(rows));
  tape_ = tape ? &tapes_[*tape == TapeKind::kLayerInputs ? 1 : 0] : nullptr;
  THRESHER_RETURN_IF_ERROR(Forward(*policy_weights_, tape ? *tape_ : tapes_[1], tape.has_value()));
  return gpu::Await(stream_, "hidden states");
}

Status CudaTrainingPass::SendHead(std::span<const float> head) {
  THRESHER_CHECK(head.size() == static_cast<std::size_t>(config_.width) + 1,
                 "the head is not [D + 1]");
  value_head_sent_.assign(head.begin(), head.end());
  return Send(value_head_sent_, value_head_);
}

Result<std::vector<float>> CudaTrainingPass::Values(std::span<const float> head) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_RETURN_IF_ERROR(SendHead(head));
  THRESHER_RETURN_IF_ERROR(value_.Reserve(static_cast<std::size_t>(rows_.paged.t)));
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cuda::ValueHeadForward(stream_.get(), rows_.paged.t, config_.width,
                                           hidden_.data(), config_.width, value_head_.data(),
                                           value_head_.data() + config_.width, value_.data()),
                    "values"));
  return Fetch(value_);
}

kernels::ValueHeadBackwardArgs CudaTrainingPass::HeadArgs() const {
  kernels::ValueHeadBackwardArgs args{};
  args.t = rows_.paged.t;
  args.d = config_.width;
  args.hidden = hidden_.data();
  args.ldh = config_.width;
  args.weight = value_head_.data();
  args.dvalue = dvalue_.data();
  return args;
}

Status CudaTrainingPass::ValueBackward(const ValueGradient& of) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(of.dhead.size() == of.head.size() &&
                     of.dvalue.size() == static_cast<std::size_t>(rows_.paged.t),
                 "the gradient of another head, or of other rows");
  THRESHER_RETURN_IF_ERROR(SendHead(of.head));
  dvalue_sent_.assign(of.dvalue.begin(), of.dvalue.end());
  dvalue_head_sent_.assign(of.dhead.begin(), of.dhead.end());
  THRESHER_RETURN_IF_ERROR(Send(dvalue_sent_, dvalue_));
  THRESHER_RETURN_IF_ERROR(Send(dvalue_head_sent_, dvalue_head_));
  kernels::ValueHeadBackwardArgs args = HeadArgs();
  args.dweight = dvalue_head_.data();
  args.dbias = dvalue_head_.data() + config_.width;
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cuda::ValueHeadBackward(stream_.get(), args), "gradient of a value head"));
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaMemcpyAsync(of.dhead.data(), dvalue_head_.data(), of.dhead.size_bytes(),
                                    cudaMemcpyDeviceToHost, stream_.get()),
                    "copy of a value head's gradient"));
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "the gradient of a value head"));
  value_gradient_ = of.trunk != 0;
  if (!value_gradient_) return Status::Ok();
  for (float& d : dvalue_sent_) d *= of.trunk;
  return Send(dvalue_sent_, dvalue_);
}

Status CudaTrainingPass::HeadBackward(std::span<const float> dlogprob,
                                      std::span<const float> dentropy) {
  const auto count = static_cast<std::size_t>(rows_.paged.t);
  THRESHER_CHECK(dlogprob.size() == count && (dentropy.empty() || dentropy.size() == count),
                 "a gradient of other rows");
  dlogprob_sent_.assign(dlogprob.begin(), dlogprob.end());
  dentropy_sent_.assign(dentropy.begin(), dentropy.end());
  THRESHER_RETURN_IF_ERROR(Send(dlogprob_sent_, dlogprob_));
  if (!dentropy.empty()) THRESHER_RETURN_IF_ERROR(Send(dentropy_sent_, dentropy_));
  return head_.Backward(*policy_weights_, products_, HeadRows(), dlogprob_.data(),
                        dentropy.empty() ? nullptr : dentropy_.data(), dhidden_.data(),
                        leaf_gradient_ + layout_.head_gradient, stream_.get());
}

Status CudaTrainingPass::Backward(std::span<const float> dlogprob,
                                  std::span<const float> dentropy) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(in_leaf_ && tape_ != nullptr, "a gradient of no rows");
  DeviceTape& tape = *std::exchange(tape_, nullptr);
  const auto count = static_cast<std::size_t>(rows_.paged.t);
  if (dlogprob.empty()) {
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
        cudaMemsetAsync(dhidden_.data(), 0,
                        count * static_cast<std::size_t>(config_.width) * sizeof(float),
                        stream_.get()),
        "clearing of a gradient"));
  } else {
    THRESHER_RETURN_IF_ERROR(HeadBackward(dlogprob, dentropy));
  }
  if (std::exchange(value_gradient_, false)) {
    kernels::ValueHeadBackwardArgs args = HeadArgs();
    args.dhidden = dhidden_.data();
    args.lddh = config_.width;
    THRESHER_RETURN_IF_ERROR(
        gpu::ToStatus(cuda::ValueHeadBackward(stream_.get(), args), "gradient of values"));
  }
  DeviceForward forward = Pass(*policy_weights_);
  DeviceBackward backward(*policy_weights_, products_, layout_, rows_, sequences_, tape, scratch_,
                          leaf_gradient_, stream_.get());
  backward.FinalNorm(dhidden_.data());
  for (int layer = config_.layers - 1; layer >= 0; --layer) {
    if (tape.kind == TapeKind::kLayerInputs) {
      forward.Attend(layer, tape.input(layer), tape.layer(layer), true);
      forward.ProjectGateUp(layer, tape.layer(layer));
    }
    backward.Layer(layer);
  }
  backward.Embedding();
  THRESHER_RETURN_IF_ERROR(forward.status());
  return backward.status();
}

Status CudaTrainingPass::EndLeaf() {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(std::exchange(in_leaf_, false), "the end of no leaf");
  if (options_.parameters != nullptr) {
    THRESHER_RETURN_IF_ERROR(options_.parameters->EndLeaf(stream_.get()));
  } else {
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
        cudaMemcpyAsync(gradient_.data(), device_gradient_.data(), gradient_.size_bytes(),
                        cudaMemcpyDeviceToHost, stream_.get()),
        "copy of a gradient"));
  }
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "the gradient of a leaf"));
  policy_read_.reset();
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<TrainingPass>> MakeCudaTrainingPass(const ModelConfig& config,
                                                           const CudaTrainingOptions& options) {
  THRESHER_RETURN_IF_ERROR(gpu::OpenDevice(options.device).status());
  auto pass = std::make_unique<CudaTrainingPass>(config, options);
  THRESHER_RETURN_IF_ERROR(pass->Prepare());
  return Result<std::unique_ptr<TrainingPass>>(std::move(pass));
}

}  // namespace thresher::model
