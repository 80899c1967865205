#include "learner/eval_loss.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/config/plan.h"
#include "learner/gather.h"
#include "learner/mixture.h"

namespace thresher::learner {

EvalLoss::EvalLoss(const model::RunContext& run, const examples::SupervisedSource& source,
                   WorkerPool& workers)
    : run_(run), source_(source), workers_(workers) {
  while (computers_.size() < static_cast<std::size_t>(workers.threads())) {
    computers_.emplace_back(model::MakeCpuTrainingPass(run.model));
  }
}

Result<EvalLoss::Sum> EvalLoss::Leaf(
    std::uint32_t leaf, LeafComputer& computer,
    const std::shared_ptr<const model::PackedModel>& policy) const {
  const auto most = static_cast<std::uint64_t>(run_.config.supervised.eval_examples);
  const auto items = static_cast<std::uint32_t>(std::min(most, source_.held_out()));
  const auto leaves = static_cast<std::uint32_t>(run_.config.learner.grad_leaves);
  const LeafRange range = GradientLeaf(items, leaves, leaf);
  LeafWork work;
  for (std::uint32_t i = range.begin; i < range.end; ++i) {
    THRESHER_ASSIGN_OR_RETURN(const auto example, source_.HeldOut(i));
    work.sequences.push_back(SequenceOf(example, i));
  }
  Sum sum;
  if (work.sequences.empty()) return sum;
  LeafOptions options;
  options.micro_batch_tokens = static_cast<std::size_t>(run_.config.learner.micro_batch_tokens);
  THRESHER_ASSIGN_OR_RETURN(
      const auto logprobs,
      computer.LogProbs(policy, options, work, ObjectiveSpec::Kind::kSupervised));
  for (std::size_t s = 0; s < logprobs.size(); ++s) {
    const auto& in_loss = work.sequences[s].in_loss;
    for (std::size_t row = 0; row < in_loss.size(); ++row) {
      if (!in_loss[row]) continue;
      sum.logprob += static_cast<double>(logprobs[s][row]);
      ++sum.tokens;
    }
  }
  return sum;
}

Result<EvalLoss::Measured> EvalLoss::Measure(comm::Communicator& comm,
                                             std::span<const float> weights) {
  const auto policy = model::PackedModel::Make(run_.model, weights, run_.tokenizer->vocab(), false);
  const auto count = static_cast<std::uint32_t>(run_.config.learner.grad_leaves) / comm.size();
  const std::uint32_t begin = comm.rank().value * count;
  std::vector<Result<Sum>> sums(count, Sum{});
  workers_.Run(count, [&](int worker, std::int64_t leaf) {
    sums[static_cast<std::size_t>(leaf)] =
        Leaf(begin + static_cast<std::uint32_t>(leaf), computers_[static_cast<std::size_t>(worker)],
             policy);
  });
  BlobWriter writer;
  for (const auto& sum : sums) {
    THRESHER_RETURN_IF_ERROR(sum.status());
    writer.Put(*sum);
  }
  THRESHER_ASSIGN_OR_RETURN(const auto blobs, GatherBlobs(comm, writer.Take(), "evaluation loss"));
  Sum all;  // leaf after leaf, whoever computed it
  for (const std::string& blob : blobs) {
    for (BlobReader reader(blob); !reader.done();) {
      const Sum sum = reader.Get<Sum>();
      all.logprob += sum.logprob;
      all.tokens += sum.tokens;
    }
  }
  Measured out;
  out.tokens = all.tokens;
  if (all.tokens == 0) return out;
  out.loss = -all.logprob / static_cast<double>(all.tokens);
  out.perplexity = std::exp(out.loss);
  return out;
}

}  // namespace thresher::learner
