#include "common/model/cuda/cuda_runner.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <utility>

#include "common/base/check.h"
#include "common/gpu/device.h"
#include "common/model/cuda/device_forward.h"
#include "common/model/cuda/device_head.h"
#include "common/model/cuda/step_upload.h"
#include "kernels/cuda/rows.h"

namespace thresher::model {
namespace {

namespace cuda = kernels::cuda;

constexpr int kDepth = 2;

std::int32_t PagesEach(const ModelConfig& config) {
  constexpr auto kPage = static_cast<std::int32_t>(kernels::kKvPageSize);
  return (config.context + kPage - 1) / kPage;
}

class CudaRunner final : public StepRunner {
 public:
  CudaRunner(const ModelConfig& config, const CudaRunnerOptions& options, StepUpload upload)
      : config_(config),
        options_(options),
        buckets_(options.slots, config.context),
        upload_(std::move(upload)) {}

  ~CudaRunner() override {
    if (stream_) (void)cudaStreamSynchronize(stream_.get());
  }

  Status Prepare();

  std::int32_t pages() const override { return kv_.pages(); }
  std::int32_t slots() const override { return options_.slots; }
  int depth() const override { return kDepth; }
  bool RunsAhead(const RowSampling& sampling) const override { return !NeedsLogits(sampling); }
  Status SetWeights(std::shared_ptr<const PackedModel> weights) override;
  Status Launch(const StepInput& step) override;
  Result<std::vector<RowSample>> Collect() override;

 private:
  struct OnItsWay {
    int piece = 0;
    std::vector<StepDraw> draws;
  };

  // filtered: the step, if draws of it need their logits.
  Status Put(const StepLayout& layout, std::int64_t max_positions, const StepInput* filtered,
             int piece);
  Status Replay(const StepLayout& layout, std::int32_t max_positions);

  const ModelConfig config_;
  const CudaRunnerOptions options_;
  const GraphBuckets buckets_;
  gpu::Stream stream_;
  std::array<gpu::Event, kDepth> done_;  // of the steps on their way, by piece
  StepUpload upload_;
  DeviceProducts products_;
  DeviceKv kv_;
  std::array<std::unique_ptr<DeviceWeights>, 2> weights_;  // the second is made when it is needed
  int current_ = -1;                                       // of weights_
  // What a step works with.
  DeviceLayerActivations layer_;
  DeviceArray<float> residual_, activated_;
  DeviceArray<std::int32_t> token_, last_, table_;
  DeviceArray<std::byte> scratch_;
  DeviceHead head_;
  // Recorded decode steps, by size and by whose weights they read.
  std::map<std::pair<GraphBucket, int>, gpu::GraphExec> graphs_;
  std::deque<OnItsWay> on_their_way_;
  int next_piece_ = 0;
};

Status CudaRunner::Prepare() {
  THRESHER_ASSIGN_OR_RETURN(stream_, gpu::MakeStream());
  for (gpu::Event& event : done_) {
    THRESHER_ASSIGN_OR_RETURN(event, gpu::MakeEvent());
  }
  // First: its self-test takes memory that it gives back.
  THRESHER_ASSIGN_OR_RETURN(
      products_, DeviceProducts::Make(config_, {options_.set, false, options_.self_test_batches},
                                      stream_.get()));
  std::size_t free_bytes = 0, total_bytes = 0;
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  const DevicePlanOptions plan_options{options_.set, options_.slots, options_.max_rows,
                                       options_.pages};
  THRESHER_ASSIGN_OR_RETURN(const DevicePlan plan,
                            PlanDevice(config_, plan_options,
                                       static_cast<std::size_t>(static_cast<double>(free_bytes) *
                                                                options_.memory_fraction)));
  const auto rows = static_cast<std::size_t>(options_.max_rows);
  const auto slots = static_cast<std::size_t>(options_.slots);
  THRESHER_RETURN_IF_ERROR(products_.Reserve(config_, rows));
  THRESHER_ASSIGN_OR_RETURN(weights_[0], DeviceWeights::Make(config_, options_.set, false));
  THRESHER_ASSIGN_OR_RETURN(kv_, DeviceKv::Make(config_, options_.set, plan.pages));
  THRESHER_RETURN_IF_ERROR(layer_.Reserve(config_, rows, false));
  THRESHER_RETURN_IF_ERROR(residual_.Reserve(rows * static_cast<std::size_t>(config_.width)));
  THRESHER_RETURN_IF_ERROR(activated_.Reserve(rows * static_cast<std::size_t>(config_.ffn_width)));
  THRESHER_RETURN_IF_ERROR(token_.Reserve(rows));
  THRESHER_RETURN_IF_ERROR(last_.Reserve(slots + 1));
  THRESHER_RETURN_IF_ERROR(
      table_.Reserve((slots + 1) * static_cast<std::size_t>(PagesEach(config_))));
  THRESHER_RETURN_IF_ERROR(scratch_.Reserve(SplitScratchBytes(config_, options_.slots)));
  THRESHER_ASSIGN_OR_RETURN(head_, DeviceHead::Make(config_, options_.set, options_.slots, kDepth));
  Launches launch;
  for (auto* array : {&last_, &table_}) {
    launch("clearing of tables", cudaMemsetAsync(array->data(), 0, array->bytes(), stream_.get()));
  }
  return launch.status();
}

// The version before stays where it is until the last step that reads it has ended: the new one
// goes into the other buffer. Without room for two, the steps on their way are waited for.
Status CudaRunner::SetWeights(std::shared_ptr<const PackedModel> weights) {
  const PackedWeights& packed = PackedWeights::Of(*weights);
  int next = current_ < 0 ? 0 : 1 - current_;
  if (weights_[static_cast<std::size_t>(next)] == nullptr) {
    auto made = DeviceWeights::Make(config_, options_.set, false);
    if (!made.ok() && made.status().code() != StatusCode::kResourceExhausted) return made.status();
    if (made.ok()) {
      weights_[static_cast<std::size_t>(next)] = std::move(made).value();
    } else {
      next = current_;
    }
  }
  // In the stream's order, so behind the steps that read this buffer.
  THRESHER_RETURN_IF_ERROR(weights_[static_cast<std::size_t>(next)]->Upload(packed, stream_.get()));
  THRESHER_RETURN_IF_ERROR(gpu::Synchronize(stream_));
  current_ = next;
  return Status::Ok();
}

Status CudaRunner::Launch(const StepInput& step) {
  THRESHER_CHECK(current_ >= 0 && on_their_way_.size() < kDepth && step.rows() > 0,
                 "a step without weights or before its turn");
  const auto draws = static_cast<std::int32_t>(step.draws.size());
  THRESHER_CHECK(step.rows() <= options_.max_rows && draws <= options_.slots,
                 "a step larger than was planned for");
  const bool decodes = draws == step.rows();
  const bool plain = std::all_of(step.draws.begin(), step.draws.end(),
                                 [&](const StepDraw& draw) { return RunsAhead(draw.sampling); });
  const std::int32_t last = *std::max_element(step.position.begin(), step.position.end());
  const bool recorded = options_.graphs && decodes && plain;
  GraphBucket bucket{step.rows(), last + 1};
  if (recorded) bucket = buckets_.Of(step.rows(), last);
  const StepLayout layout(bucket.rows, recorded ? bucket.rows : draws);
  const int piece = std::exchange(next_piece_, (next_piece_ + 1) % kDepth);
  THRESHER_RETURN_IF_ERROR(upload_.Send(step, layout, piece, stream_.get()));
  Launches launch;
  launch("update of the page tables",
         cuda::UpdateTable(stream_.get(), upload_.updates(),
                           upload_.At<std::int32_t>(layout.updates), table_.data()));
  launch("copy of pages",
         cuda::CopyPages(stream_.get(), upload_.copies(),
                         upload_.At<std::int32_t>(upload_.copies_at(layout)), config_.layers,
                         kv_.layer_stride(), config_.kv_heads, config_.head_dim, kv_.layer(0)));
  THRESHER_RETURN_IF_ERROR(launch.status());
  if (recorded) {
    THRESHER_RETURN_IF_ERROR(Replay(layout, bucket.positions));
  } else {
    THRESHER_RETURN_IF_ERROR(Put(layout, bucket.positions, plain ? nullptr : &step, piece));
  }
  THRESHER_RETURN_IF_ERROR(head_.PutResults(draws, piece, stream_.get()));
  const gpu::Event& done = done_[static_cast<std::size_t>(piece)];
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaEventRecord(done.get(), stream_.get()), "record of a step's end"));
  on_their_way_.push_back({piece, step.draws});
  return Status::Ok();
}

// The step's kernels, from tokens to draws.
Status CudaRunner::Put(const StepLayout& layout, std::int64_t max_positions,
                       const StepInput* filtered, int piece) {
  const DeviceWeights& weights = *weights_[static_cast<std::size_t>(current_)];
  Launches launch;
  launch("tokens",
         cuda::ResolveTokens(stream_.get(), layout.rows, upload_.At<std::int32_t>(layout.token),
                             upload_.At<std::int32_t>(layout.slot), last_.data(), token_.data()));
  THRESHER_RETURN_IF_ERROR(launch.status());
  DeviceRows rows;
  rows.token = token_.data();
  rows.paged = {layout.rows, upload_.At<std::int32_t>(layout.position), table_.data(),
                PagesEach(config_), upload_.At<std::int32_t>(layout.slot)};
  rows.max_positions = max_positions;
  const cuda::AttentionScratch scratch{scratch_.data(), scratch_.bytes()};
  DeviceForward forward(weights, products_, rows, kv_, scratch, stream_.get());
  forward.Embed(residual_.data());
  for (int layer = 0; layer < config_.layers; ++layer) {
    forward.Layer(layer, residual_.data(), layer_, activated_.data(), residual_.data(), false);
  }
  THRESHER_RETURN_IF_ERROR(forward.status());
  return head_.Put(weights, products_,
                   {layout.draws, upload_.At<std::int32_t>(layout.draw_row),
                    upload_.At<std::int32_t>(layout.draw_slot),
                    upload_.At<float>(layout.temperature), upload_.At<double>(layout.uniform)},
                   residual_.data(), last_.data(), filtered, piece, stream_.get());
}

// The same from a recording, which is made at the first step of its size.
Status CudaRunner::Replay(const StepLayout& layout, std::int32_t max_positions) {
  gpu::GraphExec& recorded = graphs_[{{layout.rows, max_positions}, current_}];
  if (!recorded) {
    THRESHER_RETURN_IF_ERROR(
        gpu::ToStatus(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
                      "begin of a recording"));
    const Status put = Put(layout, max_positions, nullptr, 0);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_.get(), &graph);
    const gpu::Graph owned(graph);
    THRESHER_RETURN_IF_ERROR(put);
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(ended, "end of a recording"));
    cudaGraphExec_t exec = nullptr;
    THRESHER_RETURN_IF_ERROR(
        gpu::ToStatus(cudaGraphInstantiate(&exec, owned.get(), 0), "cudaGraphInstantiate"));
    recorded = gpu::GraphExec(exec);
  }
  return gpu::ToStatus(cudaGraphLaunch(recorded.get(), stream_.get()), "cudaGraphLaunch");
}

Result<std::vector<RowSample>> CudaRunner::Collect() {
  THRESHER_CHECK(!on_their_way_.empty(), "no step is on its way");
  const OnItsWay step = std::move(on_their_way_.front());
  on_their_way_.pop_front();
  THRESHER_RETURN_IF_ERROR(gpu::ToStatus(
      cudaEventSynchronize(done_[static_cast<std::size_t>(step.piece)].get()), "a step"));
  return head_.Results(step.draws, step.piece);
}

}  // namespace

Result<std::unique_ptr<StepRunner>> MakeCudaRunner(const ModelConfig& config,
                                                   const CudaRunnerOptions& options) {
  THRESHER_CHECK(options.slots >= 1 && options.max_rows >= options.slots,
                 "a runner that can run nothing");
  THRESHER_RETURN_IF_ERROR(gpu::OpenDevice(options.device).status());
  THRESHER_ASSIGN_OR_RETURN(StepUpload upload, StepUpload::Make(options.max_rows, options.slots,
                                                                PagesEach(config), kDepth));
  auto runner = std::make_unique<CudaRunner>(config, options, std::move(upload));
  THRESHER_RETURN_IF_ERROR(runner->Prepare());
  return Result<std::unique_ptr<StepRunner>>(std::move(runner));
}

}  // namespace thresher::model
