#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "common/base/check.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/fpenv.h"
#include "learner/leaf.h"
#include "learner/objective.h"
#include "learner/strict_ops.h"

namespace thresher::learner {
namespace {

constexpr auto kPageSize = static_cast<std::int32_t>(kernels::kKvPageSize);

std::int32_t PagesFor(std::size_t rows) {
  return static_cast<std::int32_t>((rows + kPageSize - 1) / kPageSize);
}

// Rows, targets and page tables of sequences [part.begin, part.end).
struct Packed {
  StrictContext context;
  std::vector<std::vector<std::int32_t>> page_tables;  // one per sequence
  std::vector<float> behaviour, advantage, weight;
  std::int32_t pages = 0;
};

double TokenWeight(const LossSpec& spec, const TrainSequence& sequence) {
  if (spec.aggregate == LossSpec::Aggregate::kTokenMean) {
    return 1.0 / static_cast<double>(std::max<std::uint64_t>(1, spec.batch_loss_tokens));
  }
  double tokens = 0;
  for (auto flag : sequence.in_loss) tokens += flag;
  return 1.0 / (std::max(1.0, tokens) *
                static_cast<double>(std::max<std::uint64_t>(1, spec.batch_trajectories)));
}

Packed Pack(const LeafWork& work, const MicroBatch& part, const LossSpec& spec) {
  Packed out;
  out.page_tables.reserve(part.end - part.begin);
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    std::size_t rows = sequence.in_loss.size();
    auto& table = out.page_tables.emplace_back();
    for (std::int32_t p = 0; p < PagesFor(rows); ++p) table.push_back(out.pages++);
    float weight = static_cast<float>(TokenWeight(spec, sequence));
    for (std::size_t i = 0; i < rows; ++i) {
      out.context.rows.token.push_back(sequence.tokens[i]);
      out.context.rows.position.push_back(static_cast<std::int32_t>(i));
      out.context.rows.page_table.push_back(table.data());
      out.context.target.push_back(sequence.tokens[i + 1]);
      out.context.temperature.push_back(
          spec.kind == LossSpec::Kind::kSupervised ? 1.0f : sequence.temperature);
      THRESHER_CHECK(spec.kind == LossSpec::Kind::kSupervised || !sequence.in_loss[i] ||
                         sequence.has_behaviour[i],
                     "a policy token without its behaviour logprob in the loss");
      out.behaviour.push_back(sequence.behaviour_logprob[i]);
      out.advantage.push_back(sequence.advantage);
      out.weight.push_back(sequence.in_loss[i] ? weight : 0.0f);
    }
  }
  return out;
}

torch::Tensor ToTensor(const std::vector<float>& values) {
  torch::Tensor out = torch::empty({static_cast<std::int64_t>(values.size())}, torch::kFloat32);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<float>());
  return out;
}

// Compares recorded with recomputed logprobs by their bits.
void Audit(const LeafWork& work, const MicroBatch& part, const float* logprob, LeafStats& stats) {
  std::size_t row = 0;
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    for (std::size_t i = 0; i < sequence.in_loss.size(); ++i, ++row) {
      if (!sequence.has_behaviour[i]) continue;
      ++stats.audited_tokens;
      if (std::bit_cast<std::uint32_t>(sequence.behaviour_logprob[i]) !=
          std::bit_cast<std::uint32_t>(logprob[row])) {
        ++stats.mismatched_tokens;
        ++stats.mismatches_by_actor[sequence.actor];
      }
    }
  }
}

void AddTokenStats(const Packed& packed, const LossSpec& spec, const float* logprob,
                   const ObjectiveOutputs& result, const torch::Tensor& reference,
                   LeafStats& stats) {
  const float* ratio = result.ratio.defined() ? result.ratio.const_data_ptr<float>() : nullptr;
  const bool* clipped = result.clipped.defined() ? result.clipped.const_data_ptr<bool>() : nullptr;
  const float* base = reference.defined() ? reference.const_data_ptr<float>() : nullptr;
  auto k3 = [](double q) { return std::exp(q) - q - 1.0; };
  for (std::size_t i = 0; i < packed.weight.size(); ++i) {
    if (packed.weight[i] == 0.0f) continue;
    ++stats.loss_tokens;
    stats.logprob += logprob[i];
    stats.entropy += packed.context.entropy[i];
    if (ratio != nullptr) {
      stats.kl += k3(static_cast<double>(packed.behaviour[i]) - logprob[i]);
      stats.ratio_min = std::min<double>(stats.ratio_min, ratio[i]);
      stats.ratio_max = std::max<double>(stats.ratio_max, ratio[i]);
      stats.clipped += clipped[i];
    }
    if (base != nullptr) stats.reference_kl += k3(static_cast<double>(base[i]) - logprob[i]);
  }
}

}  // namespace

struct LeafComputer::Scratch {
  model::WorkspacePtr workspace = model::NewWorkspace();
  std::unique_ptr<model::KvCache> cache;
  // One for each kind: memory that is kept costs no page faults.
  std::array<model::TapePtr, 2> tapes = {model::NewTape(model::TapeKind::kAllActivations),
                                         model::NewTape(model::TapeKind::kLayerInputs)};

  model::KvCache& CacheOf(const model::ModelConfig& config, std::int32_t pages) {
    if (!cache || cache->pages() < pages) cache = std::make_unique<model::KvCache>(config, pages);
    return *cache;
  }
};

LeafComputer::LeafComputer() : scratch_(std::make_unique<Scratch>()) {}
LeafComputer::~LeafComputer() = default;

namespace {

torch::Tensor ReferenceLogProbs(const model::PackedModel* reference, Packed& packed,
                                model::KvCache& cache, model::Workspace& workspace) {
  if (reference == nullptr) return {};
  std::vector<float> hidden(packed.weight.size() *
                            static_cast<std::size_t>(reference->config().width));
  model::Forward(*reference, packed.context.rows, cache, workspace, hidden);
  return ToTensor(model::LogProb(*reference, hidden, packed.context.target,
                                 packed.context.temperature, workspace)
                      .logprob);
}

}  // namespace

LeafStats LeafComputer::Compute(const model::PackedModel& policy,
                                const model::PackedModel* reference, const LeafWork& work,
                                const LossSpec& spec, const LeafOptions& options,
                                std::span<float> gradient) {
  LeafStats stats;
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    Packed packed = Pack(work, part, spec);
    model::KvCache& cache = scratch_->CacheOf(policy.config(), packed.pages);
    ObjectiveInputs inputs;
    inputs.reference = ReferenceLogProbs(reference, packed, cache, *scratch_->workspace);
    StrictContext& context = packed.context;
    context.policy = &policy;
    context.workspace = scratch_->workspace.get();
    context.cache = &cache;
    context.gradient = gradient;
    context.tape = scratch_->tapes[options.recompute ? 1 : 0].get();
    torch::Tensor anchor = torch::zeros({1}, torch::requires_grad());
    inputs.logprob = StrictLogProbs(context, StrictTrunk(context, anchor));
    inputs.behaviour = ToTensor(packed.behaviour);
    inputs.advantage = ToTensor(packed.advantage);
    inputs.weight = ToTensor(packed.weight);
    ObjectiveOutputs result = Objective(spec, inputs);
    result.loss.backward();
    const float* logprob = inputs.logprob.const_data_ptr<float>();
    if (options.audit) Audit(work, part, logprob, stats);
    AddTokenStats(packed, spec, logprob, result, inputs.reference, stats);
    stats.loss += result.loss.item<float>();
    stats.rows += part.rows;
  }
  return stats;
}

void InitialiseTorch() {
  // Read once by libtorch, at its first dispatch, and by the MKL inside, at its first call. MKL
  // would give each worker threads of its own, and its vector functions would follow the CPU.
  setenv("ATEN_CPU_CAPABILITY", "default", 1);
  setenv("MKL_NUM_THREADS", "1", 1);
  setenv("MKL_CBWR", "COMPATIBLE", 1);
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  kernels::PinFpEnv();
}

}  // namespace thresher::learner
