#include "launch/evaluation.h"

#include <algorithm>

#include "actor/engine/engine.h"

namespace thresher::launch {
namespace {

constexpr std::int32_t kMaxBatch = 128;

class Evaluator {
 public:
  Evaluator(const Config& config, const EvaluationSpec& spec, const actor::Rollout& rollout,
            actor::Engine& engine)
      : config_(config), spec_(spec), rollout_(rollout), engine_(engine) {
    result_.items.assign(spec.items, std::vector<Answer>(spec.samples));
  }

  Result<EvaluationResult> Run(const std::function<void(std::uint64_t)>& progress) {
    const std::uint64_t total = std::uint64_t(spec_.items) * spec_.samples;
    std::uint64_t submitted = 0, done = 0;
    while (done < total) {
      for (; submitted < total && engine_.load() < 2 * kMaxBatch; ++submitted) {
        THRESHER_RETURN_IF_ERROR(engine_.Submit(rollout_.Request(SpecOf(submitted))));
      }
      THRESHER_ASSIGN_OR_RETURN(const auto finished, engine_.Step());
      for (const actor::GenerationResult& generated : finished) {
        Take(generated);
        ++done;
      }
      progress(done);
    }
    result_.mean_reward = reward_sum_ / static_cast<double>(std::max<std::uint64_t>(1, total));
    return std::move(result_);
  }

 private:
  // The samples of an item follow one another.
  actor::SampleSpec SpecOf(std::uint64_t ordinal) const {
    return SpecOf(TrajectoryId{Stream::kEval, 0, ordinal / spec_.samples,
                               static_cast<std::uint32_t>(ordinal % spec_.samples)});
  }
  actor::SampleSpec SpecOf(const TrajectoryId& id) const {
    return {id, spec_.samples, PolicyVersion{}, spec_.temperature, spec_.max_new_tokens};
  }

  void Take(const actor::GenerationResult& generated) {
    Trajectory record = rollout_.Finish(SpecOf(generated.id), generated);
    const tasks::Environment& environment = rollout_.environment();
    tasks::Item item = environment.Generate(config_.run.seed, Stream::kEval, record.id.item);
    tasks::Verdict verdict = environment.Verify(item, record.text);
    Answer& answer = result_.items[record.id.item][record.id.sample];
    answer.solved = verdict.kind == OutcomeKind::kScored && verdict.score >= 1.0;
    if (verdict.kind == OutcomeKind::kScored) answer.parsed = verdict.parsed;
    ++result_.reasons[verdict.reason];
    result_.generated_tokens += generated.logprobs.size();
    reward_sum_ += record.outcome.reward;
  }

  const Config& config_;
  const EvaluationSpec& spec_;
  const actor::Rollout& rollout_;
  actor::Engine& engine_;
  EvaluationResult result_;
  double reward_sum_ = 0;
};

}  // namespace

bool MajoritySolves(const std::vector<Answer>& answers) {
  std::map<std::string, std::uint32_t> votes;
  for (const Answer& answer : answers) {
    if (!answer.parsed.empty()) ++votes[answer.parsed];
  }
  std::uint32_t most = 0;
  bool solved = false;
  for (const Answer& answer : answers) {  // in order: the first of equals wins
    if (answer.parsed.empty() || votes[answer.parsed] <= most) continue;
    most = votes[answer.parsed];
    solved = answer.solved;
  }
  return solved;
}

broker::Estimate MajorityAtK(const std::vector<std::vector<Answer>>& items, std::uint32_t k) {
  broker::EvalResult votes;
  votes.round.samples = 1;
  for (const auto& answers : items) {
    auto blocks = static_cast<std::uint32_t>(answers.size() / k);
    THRESHER_CHECK(k >= 1 && blocks >= 1, "maj@k needs 1 <= k <= samples");
    votes.round.samples = blocks;
    std::uint32_t right = 0;
    for (std::uint32_t b = 0; b < blocks; ++b) {
      right += MajoritySolves({answers.begin() + b * k, answers.begin() + (b + 1) * k});
    }
    votes.solved.push_back(right);
  }
  return broker::PassAtK(votes, 1);
}

broker::EvalResult EvaluationResult::Solved() const {
  broker::EvalResult out;
  for (const auto& answers : items) {
    out.round.samples = static_cast<std::uint32_t>(answers.size());
    out.solved.push_back(static_cast<std::uint32_t>(std::count_if(
        answers.begin(), answers.end(), [](const Answer& answer) { return answer.solved; })));
  }
  return out;
}

Result<EvaluationResult> Evaluate(const LoadedPolicy& policy, const Config& config,
                                  const EvaluationSpec& spec, const Device& device,
                                  const std::function<void(std::uint64_t done)>& progress) {
  THRESHER_RETURN_IF_ERROR(policy.without_tokenizer);
  THRESHER_ASSIGN_OR_RETURN(auto rollout, actor::Rollout::Make(config, *policy.tokenizer));
  actor::EngineOptions options;
  options.max_batch = kMaxBatch;
  THRESHER_ASSIGN_OR_RETURN(actor::Engine engine,
                            actor::MakeEngine(policy.weights->config(), options, device, nullptr));
  THRESHER_RETURN_IF_ERROR(engine.SetWeights(policy.weights, PolicyVersion{}));
  return Evaluator(config, spec, *rollout, engine).Run(progress);
}

}  // namespace thresher::launch
