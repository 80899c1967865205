#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "common/base/check.h"
#include "kernels/cpu/fpenv.h"
#include "learner/leaf.h"
#include "learner/objective.h"
#include "learner/strict_ops.h"

namespace thresher::learner {
namespace {

// Rows and targets of sequences [part.begin, part.end).
struct Packed {
  StrictContext context;
  std::vector<float> behaviour, advantage, weight;
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
  for (std::size_t s = part.begin; s < part.end; ++s) {
    const TrainSequence& sequence = work.sequences[s];
    std::size_t rows = sequence.in_loss.size();
    float weight = static_cast<float>(TokenWeight(spec, sequence));
    for (std::size_t i = 0; i < rows; ++i) {
      model::TrainRows& row = out.context.rows;
      row.token.push_back(sequence.tokens[i]);
      row.position.push_back(static_cast<std::int32_t>(i));
      row.target.push_back(sequence.tokens[i + 1]);
      row.temperature.push_back(
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
    stats.entropy += packed.context.result.entropy[i];
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

LeafComputer::LeafComputer(std::unique_ptr<model::TrainingPass> pass) : pass_(std::move(pass)) {}

Result<LeafStats> LeafComputer::Compute(std::shared_ptr<const model::PackedModel> policy,
                                        std::shared_ptr<const model::PackedModel> reference,
                                        const LeafWork& work, const LossSpec& spec,
                                        const LeafOptions& options, std::span<float> gradient) {
  LeafStats stats;
  THRESHER_RETURN_IF_ERROR(pass_->BeginLeaf(std::move(policy), gradient));
  for (const MicroBatch& part : CutMicroBatches(work.sequences, options.micro_batch_tokens)) {
    Packed packed = Pack(work, part, spec);
    ObjectiveInputs inputs;
    if (reference != nullptr) {
      THRESHER_ASSIGN_OR_RETURN(const auto logprobs,
                                pass_->ReferenceLogProbs(reference, packed.context.rows));
      inputs.reference = ToTensor(logprobs);
    }
    packed.context.pass = pass_.get();
    packed.context.recompute = options.recompute;
    torch::Tensor anchor = torch::zeros({1}, torch::requires_grad());
    inputs.logprob = StrictLogProbs(packed.context, anchor);
    inputs.behaviour = ToTensor(packed.behaviour);
    inputs.advantage = ToTensor(packed.advantage);
    inputs.weight = ToTensor(packed.weight);
    ObjectiveOutputs result = Objective(spec, inputs);
    result.loss.backward();
    THRESHER_RETURN_IF_ERROR(packed.context.status);
    const float* logprob = inputs.logprob.const_data_ptr<float>();
    if (options.audit) Audit(work, part, logprob, stats);
    AddTokenStats(packed, spec, logprob, result, inputs.reference, stats);
    stats.loss += result.loss.item<float>();
    stats.rows += part.rows;
  }
  THRESHER_RETURN_IF_ERROR(pass_->EndLeaf());
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
