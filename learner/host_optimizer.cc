#include "learner/host_optimizer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "learner/gradient.h"

namespace thresher::learner {
namespace {

// One thread alone does not fill the memory's bandwidth.
void CopyOver(WorkerPool& workers, const std::vector<float>& from, std::vector<float>& to) {
  constexpr std::size_t kPiece = 1 << 18;
  to.resize(from.size());
  workers.Run(static_cast<std::int64_t>((from.size() + kPiece - 1) / kPiece),
              [&](int, std::int64_t piece) {
                const std::size_t begin = static_cast<std::size_t>(piece) * kPiece;
                const std::size_t count = std::min(kPiece, from.size() - begin);
                std::memcpy(to.data() + begin, from.data() + begin, count * sizeof(float));
              });
}

std::unique_ptr<GradientSync> MakeSync(const OptimizerOptions& options, std::size_t count) {
  if (options.comm == nullptr || options.comm->size() == 1) return nullptr;
  GradientSyncOptions sync;
  sync.count = count;
  sync.bucket_bytes = options.bucket_bytes;
  sync.scatter = options.zero;
  sync.overlap = options.overlap && options.comm->any_thread();
  return std::make_unique<GradientSync>(*options.comm, sync);
}

std::optional<std::vector<Piece>> MakeShard(const OptimizerOptions& options,
                                            const GradientSync* sync) {
  if (sync == nullptr || !options.zero) return std::nullopt;
  return ShardOf(options.comm->rank(), options.comm->size(), sync->buckets());
}

std::vector<std::size_t> BlocksOf(std::span<const Piece> pieces) {
  std::vector<std::size_t> blocks;
  for (const Piece& piece : pieces) {
    for (std::size_t at = piece.begin; at < piece.end(); at += kNormBlock) {
      blocks.push_back(at / kNormBlock);
    }
  }
  return blocks;
}

double MillisecondsSince(TimePoint start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

}  // namespace

HostOptimizer::HostOptimizer(const OptimizerOptions& options, WorkerPool& workers,
                             std::unique_ptr<model::TrainingPass> device)
    : options_(options),
      workers_(workers),
      leaves_(options.model, options.valid_vocab, workers, std::move(device)),
      adamw_(options.adamw, {}) {
  Train(options.trained.List(options.model));
  if (options.trained.frozen.empty()) return;
  leaves_.Project({adamw_.count(),
                   [list = list_](std::span<const float> gradient, std::span<float> out) {
                     for (const model::ParameterInfo& info : list) {
                       const auto own = gradient.subspan(info.offset, info.count);
                       std::ranges::copy(own, out.begin());
                       out = out.subspan(info.count);
                     }
                   },
                   model::NeedsOf(options.model, list_)});
}

void HostOptimizer::Train(std::vector<model::ParameterInfo> list) {
  list_ = std::move(list);
  std::size_t count = 0;
  for (const auto& info : list_) count += info.count;
  sync_ = MakeSync(options_, count);
  shard_ = MakeShard(options_, sync_.get());
  adamw_ = AdamW(options_.adamw, list_, shard_);
}

Status HostOptimizer::Adapt(AdapterState adapters) {
  Settle();
  room_ = {};
  THRESHER_CHECK(options_.trained.lora && adapters_.empty() && gradient_.empty(),
                 "adapters that have begun, or that nobody asked for");
  const model::Lora& lora = *options_.trained.lora;
  if (adapters.empty()) adapters = {lora.BaseOf(weights_), lora.Initial(options_.seed)};
  THRESHER_CHECK(
      adapters.base.size() == lora.base_count() && adapters.weights.size() == lora.count(),
      "adapters of another model");
  adapters_ = std::move(adapters);
  Train(lora.parameters());
  leaves_.Project({lora.count(),
                   [this, &lora](std::span<const float> gradient, std::span<float> out) {
                     lora.Project(adapters_.weights, gradient, out);
                   },
                   model::NeedsOf(options_.model, lora.targets())});
  return Status::Ok();
}

void HostOptimizer::Merge() {
  const model::Lora& lora = *options_.trained.lora;
  workers_.Run(std::ssize(lora.targets()), [&](int, std::int64_t index) {
    lora.Merge(static_cast<std::size_t>(index), adapters_.base, adapters_.weights, weights_);
  });
}

Status HostOptimizer::Restore(std::vector<float> weights, AdamW::State moments) {
  THRESHER_CHECK(weights.size() == model::ParameterCount(options_.model),
                 "weights of another model");
  weights_ = std::move(weights);
  shared_ = nullptr;
  published_.clear();
  if (shard_) {
    AdamW::State own = AdamW::Fresh(CountOf(*shard_));
    own.steps = moments.steps;
    Pack(*shard_, moments.first_moment, own.first_moment);
    Pack(*shard_, moments.second_moment, own.second_moment);
    moments = std::move(own);
  }
  adamw_.Restore(std::move(moments));
  if (options_.double_buffer && MovesAll() && room_.weights.empty()) {
    room_.weights.resize(weights_.size());
    room_.optimizer = AdamW::Fresh(weights_.size());
  }
  return Status::Ok();
}

bool HostOptimizer::MovesAll() const {
  return !shard_ && adapters_.empty() && adamw_.count() == weights_.size();
}

void HostOptimizer::Settle() {
  if (shared_ == nullptr) return;
  const AdamW::State& shared = shared_->optimizer;
  AdamW::State own = adamw_.Lend();
  own.steps = shared.steps;
  CopyOver(workers_, shared_->weights, weights_);
  CopyOver(workers_, shared.first_moment, own.first_moment);
  CopyOver(workers_, shared.second_moment, own.second_moment);
  adamw_.Restore(std::move(own));
  shared_ = nullptr;
}

Status HostOptimizer::ResetMoments() {
  Settle();
  adamw_.Restore(AdamW::Fresh(adamw_.owned()));
  return Status::Ok();
}

Status HostOptimizer::Compute(std::shared_ptr<const model::PackedModel> reference,
                              std::span<const LeafWork> leaves, const ObjectiveSpec& spec,
                              const LeafOptions& options, LeafStats& stats) {
  THRESHER_CHECK(gradient_.empty(), "a step within a step");
  std::string().swap(published_);
  GradientTree::OnRoot on_root;
  if (sync_ != nullptr) {
    on_root = [this](float* sum, std::size_t from) { sync_->Ready(sum, from); };
  }
  THRESHER_ASSIGN_OR_RETURN(gradient_, leaves_.Compute(weights(), std::move(reference), leaves,
                                                       spec, options, stats, std::move(on_root)));
  return Status::Ok();
}

std::span<float> HostOptimizer::flat() {
  THRESHER_CHECK(gradient_.size() >= adamw_.count() && !gradient_.empty(), "no gradient");
  return {gradient_.data(), adamw_.count()};
}

Status HostOptimizer::AddRanks(comm::Communicator& comm) {
  if (sync_ == nullptr) return comm::TreeAllReduce(comm, flat(), "gradient");
  THRESHER_CHECK(&comm == options_.comm, "the ranks of another communicator");
  const Status status = sync_->Finish(flat().data());
  figures_.reduce_ms += sync_->figures().reduce_ms;
  figures_.wait_ms += sync_->figures().wait_ms;
  return status;
}

GradientSync::Figures HostOptimizer::TakeSyncFigures() { return std::exchange(figures_, {}); }

// With shards each rank has the sums of its own blocks, and a copy of the others'.
Result<double> HostOptimizer::Norm() {
  if (!shard_) return BlockedNorm(flat(), &workers_);
  const std::size_t blocks = (flat().size() + kNormBlock - 1) / kNormBlock;
  const std::uint32_t ranks = options_.comm->size();
  std::vector<double> mine(blocks), all(blocks * ranks), sums(blocks);
  const std::vector<std::size_t> own = BlocksOf(*shard_);
  const std::vector<double> own_sums = SquareSumsOf(flat(), own, &workers_);
  for (std::size_t i = 0; i < own.size(); ++i) mine[own[i]] = own_sums[i];
  THRESHER_RETURN_IF_ERROR(options_.comm->AllGather(
      std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), "gradient norm"));
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    for (std::size_t block : BlocksOf(ShardOf(LearnerRank(rank), ranks, sync_->buckets()))) {
      sums[block] = all[rank * blocks + block];
    }
  }
  return NormOfBlocks(std::move(sums));
}

Status HostOptimizer::Step(double learning_rate, double gradient_scale) {
  if (shared_ != nullptr) {
    adamw_.StepFrom({shared_->weights, shared_->optimizer}, weights_, flat(), learning_rate,
                    gradient_scale, &workers_);
    shared_ = nullptr;
    return Skip();
  }
  adamw_.Step(trained(), flat(), learning_rate, gradient_scale, &workers_);
  THRESHER_RETURN_IF_ERROR(GatherWeights());
  if (!adapters_.empty()) Merge();
  return Skip();
}

Status HostOptimizer::GatherWeights() {
  if (!shard_) return Status::Ok();
  const TimePoint start = SystemClock().Now();
  // Weights between which others are frozen are put side by side in the gradient's place.
  const bool apart = trained().size() != adamw_.count();
  const std::span<float> together = apart ? flat() : trained();
  for (std::size_t i = 0, at = 0; apart && i < list_.size(); at += list_[i++].count) {
    std::ranges::copy(std::span(weights_).subspan(list_[i].offset, list_[i].count),
                      together.begin() + static_cast<std::ptrdiff_t>(at));
  }
  for (const Piece& bucket : sync_->buckets()) {
    THRESHER_RETURN_IF_ERROR(comm::TreeAllGather(
        *options_.comm, together.subspan(bucket.begin, bucket.count), kNormBlock, "weights"));
  }
  for (std::size_t i = 0, at = 0; apart && i < list_.size(); at += list_[i++].count) {
    std::ranges::copy(together.subspan(at, list_[i].count),
                      weights_.begin() + static_cast<std::ptrdiff_t>(list_[i].offset));
  }
  figures_.reduce_ms += MillisecondsSince(start);
  figures_.wait_ms += MillisecondsSince(start);
  return Status::Ok();
}

Status HostOptimizer::Skip() {
  leaves_.Recycle(std::exchange(gradient_, {}));
  return Status::Ok();
}

Result<bool> HostOptimizer::ReleaseDevice() {
  leaves_.ReleaseDevice();
  return true;
}

Result<std::span<const std::byte>> HostOptimizer::Published() {
  if (options_.model.dtype == kernels::WeightType::kF32) return std::as_bytes(weights());
  if (published_.empty()) published_ = model::PublishedElements(options_.model, weights());
  return std::as_bytes(std::span(published_));
}

Result<std::span<const float>> HostOptimizer::Weights(std::vector<float>&) { return weights(); }

Status HostOptimizer::Share(TrainState& state) {
  if (!options_.double_buffer || !MovesAll()) return Copy(state);
  if (shared_ == &state) return Status::Ok();
  THRESHER_CHECK(shared_ == nullptr && gradient_.empty(), "shared with another, or within a step");
  if (state.weights.size() != weights_.size()) {
    state.weights = std::move(room_.weights);
    state.optimizer = std::move(room_.optimizer);
  }
  std::swap(state.weights, weights_);
  AdamW::State moments = adamw_.Lend();
  std::swap(state.optimizer, moments);
  adamw_.Restore(std::move(moments));
  state.adapters = {};
  shared_ = &state;
  return Status::Ok();
}

Status HostOptimizer::Copy(TrainState& state) {
  Settle();
  const AdamW::State& moments = adamw_.state();
  state.optimizer.steps = moments.steps;
  CopyOver(workers_, weights_, state.weights);
  CopyOver(workers_, adapters_.base, state.adapters.base);
  CopyOver(workers_, adapters_.weights, state.adapters.weights);
  if (shard_) return GatherMoments(&state.optimizer);
  CopyOver(workers_, moments.first_moment, state.optimizer.first_moment);
  CopyOver(workers_, moments.second_moment, state.optimizer.second_moment);
  return Status::Ok();
}

Status HostOptimizer::Lend(TrainState& state) {
  Settle();
  if (shard_) {
    state.optimizer.steps = adamw_.state().steps;
    THRESHER_RETURN_IF_ERROR(GatherMoments(&state.optimizer));
  } else {
    state.optimizer = adamw_.Lend();
  }
  state.weights = std::move(weights_);
  state.adapters = std::exchange(adapters_, {});
  return Status::Ok();
}

Status HostOptimizer::ShareShard() { return shard_ ? GatherMoments(nullptr) : Status::Ok(); }

Status HostOptimizer::GatherMoments(AdamW::State* all) {
  const AdamW::State& own = adamw_.state();
  THRESHER_RETURN_IF_ERROR(
      GatherShards(own.first_moment, all != nullptr ? &all->first_moment : nullptr));
  return GatherShards(own.second_moment, all != nullptr ? &all->second_moment : nullptr);
}

Status HostOptimizer::GatherShards(std::span<const float> own, std::vector<float>* all) {
  comm::Communicator& comm = *options_.comm;
  THRESHER_CHECK((comm.rank().value == 0) == (all != nullptr), "rank 0 collects the shards");
  if (all != nullptr) {
    all->resize(adamw_.count());
    Unpack(*shard_, own, *all);
  }
  for (std::uint32_t rank = 1; rank < comm.size(); ++rank) {
    const auto pieces = ShardOf(LearnerRank(rank), comm.size(), sync_->buckets());
    if (pieces.empty()) continue;
    std::vector<float> theirs(all != nullptr ? CountOf(pieces) : 0);
    THRESHER_RETURN_IF_ERROR(comm.Send(LearnerRank(rank), LearnerRank(0), std::as_bytes(own),
                                       std::as_writable_bytes(std::span(theirs)), "moments"));
    if (all != nullptr) Unpack(pieces, theirs, *all);
  }
  return Status::Ok();
}

void HostOptimizer::TakeBack(TrainState& state) {
  weights_ = std::exchange(state.weights, {});
  adapters_ = std::exchange(state.adapters, {});
  AdamW::State moments = std::exchange(state.optimizer, {});
  if (!shard_) adamw_.Restore(std::move(moments));
}

}  // namespace thresher::learner
