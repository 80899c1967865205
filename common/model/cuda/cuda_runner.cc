#include "common/model/cuda/cuda_runner.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <tuple>
#include <utility>

#include "common/base/check.h"
#include "common/gpu/device.h"
#include "common/gpu/shared_device.h"
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

// How many rows at a step's beginning are each of another slot than their neighbours.
std::int32_t AloneRows(const std::vector<std::int32_t>& slot) {
  std::size_t alone = 0;
  while (alone < slot.size() && (alone + 1 == slot.size() || slot[alone + 1] != slot[alone])) {
    ++alone;
  }
  return static_cast<std::int32_t>(alone);
}

// What a runner may give back.
struct StepMemory {
  DeviceKv kv;
  std::array<std::unique_ptr<DeviceWeights>, 2> weights;  // the second is made when it is needed
  int current = 0;                                        // of weights
  DeviceArray<std::byte> staging;                         // of both
  DeviceLayerActivations layer;
  DeviceArray<float> residual, activated;
  DeviceArray<std::int32_t> token, last, table;
  DeviceArray<std::byte> scratch;
  DeviceHead head;
  // Recorded decode steps, by size and by whose weights they read: where those are and how many ids
  // are valid.
  std::map<std::tuple<GraphBucket, int, std::int32_t>, gpu::GraphExec> graphs;

  const DeviceWeights& policy() const { return *weights[static_cast<std::size_t>(current)]; }
};

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

  std::int32_t pages() const override { return pages_; }
  std::int32_t slots() const override { return options_.slots; }
  int depth() const override { return kDepth; }
  // The next row finds the draw of all valid ids; a filtered one is made apart from those.
  bool RunsAhead(const RowSampling& sampling) const override { return !sampling.Filtered(); }
  Status SetWeights(std::shared_ptr<const PackedModel> weights) override;
  Status Launch(const StepInput& step) override;
  Result<std::vector<RowSample>> Collect() override;
  void Release() override;

 private:
  struct OnItsWay {
    int piece = 0;
    std::vector<StepDraw> draws;
  };

  // The device is shared with a learner.
  bool Shared() const { return options_.patience.count() > 0; }
  Result<std::unique_ptr<StepMemory>> MakeMemory() const;
  // memory_, with the weights, if it is not there.
  Status TakeMemory();
  // alone: of DeviceRows. filtered: the step, if draws of it need their logits.
  Status Put(const StepLayout& layout, std::int64_t max_positions, std::int32_t alone,
             const StepInput* filtered, int piece);
  Status Replay(const StepLayout& layout, std::int32_t max_positions);

  const ModelConfig config_;
  const CudaRunnerOptions options_;
  const GraphBuckets buckets_;
  gpu::Stream stream_;
  std::array<gpu::Event, kDepth> done_;  // of the steps on their way, by piece
  StepUpload upload_;
  DeviceProducts products_;
  std::int32_t pages_ = 0;
  bool records_ = false;  // steps of sizes that have not been recorded yet
  bool has_weights_ = false;
  std::shared_ptr<const PackedModel> policy_;  // only of a shared device: it is sent again
  std::unique_ptr<StepMemory> memory_;
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
  const auto room = static_cast<double>(Shared() ? total_bytes : free_bytes);
  const DevicePlanOptions plan_options{options_.set, options_.slots, options_.max_rows,
                                       options_.pages, options_.graphs};
  THRESHER_ASSIGN_OR_RETURN(
      const DevicePlan plan,
      PlanDevice(config_, plan_options, static_cast<std::size_t>(room * options_.memory_fraction)));
  pages_ = plan.pages;
  records_ = plan.graphs > 0;
  if (Shared()) return Status::Ok();  // taken by the first step
  THRESHER_RETURN_IF_ERROR(products_.Reserve(config_, static_cast<std::size_t>(options_.max_rows)));
  THRESHER_ASSIGN_OR_RETURN(memory_, MakeMemory());
  return Status::Ok();
}

Result<std::unique_ptr<StepMemory>> CudaRunner::MakeMemory() const {
  const auto rows = static_cast<std::size_t>(options_.max_rows);
  const auto slots = static_cast<std::size_t>(options_.slots);
  auto memory = std::make_unique<StepMemory>();
  StepMemory& m = *memory;
  THRESHER_ASSIGN_OR_RETURN(m.weights[0], DeviceWeights::Make(config_, options_.set, false));
  THRESHER_RETURN_IF_ERROR(m.staging.Reserve(WeightStagingBytes(config_, options_.set)));
  THRESHER_ASSIGN_OR_RETURN(m.kv, DeviceKv::Make(config_, options_.set, pages_));
  THRESHER_RETURN_IF_ERROR(m.layer.Reserve(config_, rows, false));
  THRESHER_RETURN_IF_ERROR(m.residual.Reserve(rows * static_cast<std::size_t>(config_.width)));
  THRESHER_RETURN_IF_ERROR(m.activated.Reserve(rows * static_cast<std::size_t>(config_.ffn_width)));
  THRESHER_RETURN_IF_ERROR(m.token.Reserve(rows));
  THRESHER_RETURN_IF_ERROR(m.last.Reserve(slots + 1));
  THRESHER_RETURN_IF_ERROR(
      m.table.Reserve((slots + 1) * static_cast<std::size_t>(PagesEach(config_))));
  THRESHER_RETURN_IF_ERROR(m.scratch.Reserve(SplitScratchBytes(config_, options_.slots)));
  THRESHER_ASSIGN_OR_RETURN(m.head,
                            DeviceHead::Make(config_, options_.set, options_.slots, kDepth));
  Launches launch;
  for (auto* array : {&m.last, &m.table}) {
    launch("clearing of tables", cudaMemsetAsync(array->data(), 0, array->bytes(), stream_.get()));
  }
  THRESHER_RETURN_IF_ERROR(launch.status());
  return memory;
}

Status CudaRunner::TakeMemory() {
  if (memory_ != nullptr) return Status::Ok();
  THRESHER_RETURN_IF_ERROR(gpu::AwaitMemory(options_.patience, [this] {
    const Status operands = products_.Reserve(config_, static_cast<std::size_t>(options_.max_rows));
    if (!operands.ok()) return operands;
    auto made = MakeMemory();
    if (!made.ok()) products_.Release();
    if (made.ok()) memory_ = std::move(made).value();
    return made.status();
  }));
  upload_.ForgetTables();
  if (policy_ == nullptr) return Status::Ok();
  return memory_->weights[0]->Upload(PackedWeights::Of(*policy_), memory_->staging, stream_.get());
}

void CudaRunner::Release() {
  THRESHER_CHECK(on_their_way_.empty(), "memory given back while a step is on its way");
  if (memory_ == nullptr) return;
  (void)gpu::UseDevice(options_.device);
  (void)cudaStreamSynchronize(stream_.get());
  memory_.reset();
  products_.Release();
}

// Into the other buffer, if there is room for two: the version before stays whole until this one
// has arrived.
Status CudaRunner::SetWeights(std::shared_ptr<const PackedModel> weights) {
  THRESHER_CHECK(on_their_way_.empty(), "weights changed while a step is on its way");
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  const bool first = !std::exchange(has_weights_, true);
  if (Shared()) policy_ = weights;
  if (memory_ == nullptr) return Status::Ok();  // sent when it is taken back
  int next = first ? 0 : 1 - memory_->current;
  auto& buffer = memory_->weights[static_cast<std::size_t>(next)];
  if (buffer == nullptr) {
    auto made = DeviceWeights::Make(config_, options_.set, false);
    if (!made.ok() && made.status().code() != StatusCode::kResourceExhausted) return made.status();
    if (made.ok()) {
      buffer = std::move(made).value();
    } else {
      next = memory_->current;
    }
  }
  THRESHER_RETURN_IF_ERROR(memory_->weights[static_cast<std::size_t>(next)]->Upload(
      PackedWeights::Of(*weights), memory_->staging, stream_.get()));
  THRESHER_RETURN_IF_ERROR(gpu::Await(stream_, "copy of the weights"));
  memory_->current = next;
  return Status::Ok();
}

Status CudaRunner::Launch(const StepInput& step) {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(has_weights_ && on_their_way_.size() < kDepth && step.rows() > 0,
                 "a step without weights or before its turn");
  THRESHER_RETURN_IF_ERROR(TakeMemory());
  const auto draws = static_cast<std::int32_t>(step.draws.size());
  THRESHER_CHECK(step.rows() <= options_.max_rows && draws <= options_.slots,
                 "a step larger than was planned for");
  const bool decodes = draws == step.rows();
  const bool plain = std::none_of(step.draws.begin(), step.draws.end(),
                                  [](const StepDraw& draw) { return NeedsLogits(draw.sampling); });
  const std::int32_t last = *std::max_element(step.position.begin(), step.position.end());
  const bool recorded = options_.graphs && decodes && plain;  // in the form of recorded steps
  GraphBucket bucket{step.rows(), last + 1};
  if (recorded) bucket = buckets_.Of(step.rows(), last);
  const StepLayout layout(bucket.rows, recorded ? bucket.rows : draws);
  const int piece = std::exchange(next_piece_, (next_piece_ + 1) % kDepth);
  THRESHER_RETURN_IF_ERROR(upload_.Send(step, layout, piece, stream_.get()));
  Launches launch;
  launch("update of the page tables",
         cuda::UpdateTable(stream_.get(), upload_.updates(),
                           upload_.At<std::int32_t>(layout.updates), memory_->table.data()));
  launch("copy of pages",
         cuda::CopyPages(stream_.get(), upload_.copies(),
                         upload_.At<std::int32_t>(upload_.copies_at(layout)), config_.layers,
                         memory_->kv.layer_stride(), config_.kv_heads, config_.head_dim,
                         memory_->kv.layer(0)));
  THRESHER_RETURN_IF_ERROR(launch.status());
  if (recorded) {
    THRESHER_RETURN_IF_ERROR(Replay(layout, bucket.positions));
  } else {
    THRESHER_RETURN_IF_ERROR(
        Put(layout, bucket.positions, AloneRows(step.slot), plain ? nullptr : &step, piece));
  }
  THRESHER_RETURN_IF_ERROR(memory_->head.PutResults(draws, piece, stream_.get()));
  const gpu::Event& done = done_[static_cast<std::size_t>(piece)];
  THRESHER_RETURN_IF_ERROR(
      gpu::ToStatus(cudaEventRecord(done.get(), stream_.get()), "record of a step's end"));
  on_their_way_.push_back({piece, step.draws});
  return Status::Ok();
}

// The step's kernels, from tokens to draws.
Status CudaRunner::Put(const StepLayout& layout, std::int64_t max_positions, std::int32_t alone,
                       const StepInput* filtered, int piece) {
  const DeviceWeights& weights = memory_->policy();
  Launches launch;
  launch("tokens",
         cuda::ResolveTokens(stream_.get(), layout.rows, upload_.At<std::int32_t>(layout.token),
                             upload_.At<std::int32_t>(layout.slot), memory_->last.data(),
                             memory_->token.data(), upload_.At<std::int32_t>(layout.position)));
  THRESHER_RETURN_IF_ERROR(launch.status());
  DeviceRows rows;
  rows.token = memory_->token.data();
  rows.paged = {layout.rows, upload_.At<std::int32_t>(layout.position), memory_->table.data(),
                PagesEach(config_), upload_.At<std::int32_t>(layout.slot)};
  rows.max_positions = max_positions;
  rows.alone = alone;
  const cuda::AttentionScratch scratch{memory_->scratch.data(), memory_->scratch.bytes()};
  DeviceForward forward(weights, products_, rows, memory_->kv, scratch, stream_.get());
  forward.Embed(memory_->residual.data());
  for (int layer = 0; layer < config_.layers; ++layer) {
    forward.Layer(layer, memory_->residual.data(), memory_->layer, memory_->activated.data(),
                  memory_->residual.data(), false);
  }
  THRESHER_RETURN_IF_ERROR(forward.status());
  return memory_->head.Put(
      weights, products_,
      {layout.draws, upload_.At<std::int32_t>(layout.draw_row),
       upload_.At<std::int32_t>(layout.draw_slot), upload_.At<float>(layout.temperature),
       upload_.At<double>(layout.uniform), upload_.At<std::int32_t>(layout.stop)},
      memory_->residual.data(), memory_->last.data(), filtered, piece, stream_.get());
}

// The same from a recording, which is made at the first step of its size. Where the device has no
// room for another one, steps go on without.
Status CudaRunner::Replay(const StepLayout& layout, std::int32_t max_positions) {
  gpu::GraphExec& recorded = memory_->graphs[{
      {layout.rows, max_positions}, memory_->current, memory_->policy().valid_vocab()}];
  const auto put = [&] { return Put(layout, max_positions, /*alone=*/layout.rows, nullptr, 0); };
  if (!recorded && !records_) return put();
  if (!recorded) {
    THRESHER_RETURN_IF_ERROR(
        gpu::ToStatus(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
                      "begin of a recording"));
    const Status status = put();
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_.get(), &graph);
    const gpu::Graph owned(graph);
    THRESHER_RETURN_IF_ERROR(status);
    THRESHER_RETURN_IF_ERROR(gpu::ToStatus(ended, "end of a recording"));
    cudaGraphExec_t exec = nullptr;
    const Status made =
        gpu::ToStatus(cudaGraphInstantiate(&exec, owned.get(), 0), "cudaGraphInstantiate");
    if (made.code() == StatusCode::kResourceExhausted) {
      (void)cudaGetLastError();
      records_ = false;
      return put();
    }
    THRESHER_RETURN_IF_ERROR(made);
    recorded = gpu::GraphExec(exec);
  }
  return gpu::ToStatus(cudaGraphLaunch(recorded.get(), stream_.get()), "cudaGraphLaunch");
}

Result<std::vector<RowSample>> CudaRunner::Collect() {
  THRESHER_RETURN_IF_ERROR(gpu::UseDevice(options_.device));
  THRESHER_CHECK(!on_their_way_.empty(), "no step is on its way");
  const OnItsWay step = std::move(on_their_way_.front());
  on_their_way_.pop_front();
  THRESHER_RETURN_IF_ERROR(gpu::Await(done_[static_cast<std::size_t>(step.piece)], "a step"));
  return memory_->head.Results(step.draws, step.piece);
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
