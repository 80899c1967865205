// Rows per second of one gradient leaf (forward, loss, backward) on one core, quickstart's shape,
// against three times the matrix products of the forward pass.
#include <iostream>

#include "learner/leaf.h"
#include "tests/bench/model_limit.h"

namespace thresher::bench {
namespace {

constexpr int kRuns = 7, kSequences = 64, kTokens = 24;

learner::LeafWork MakeWork() {
  learner::LeafWork work;
  for (int s = 0; s < kSequences; ++s) {
    learner::TrainSequence sequence;
    for (int t = 0; t < kTokens; ++t) sequence.tokens.push_back(4 + (t * 5 + s) % 20);
    sequence.in_loss.assign(kTokens - 1, 1);
    sequence.has_behaviour.assign(kTokens - 1, 1);
    sequence.behaviour_logprob.assign(kTokens - 1, -3.0f);
    sequence.advantage = s % 2 == 0 ? 1.0f : -1.0f;
    work.sequences.push_back(std::move(sequence));
  }
  return work;
}

int Main() {
  learner::InitialiseTorch();
  model::ModelConfig shape = QuickstartShape();
  auto flat = model::InitialWeights(shape, 1, 0.02);
  auto policy = model::PackedModel::Make(shape, flat, 0, true);
  learner::LeafWork work = MakeWork();
  learner::LossSpec spec;
  spec.kind = learner::LossSpec::Kind::kPolicyGradient;
  spec.batch_loss_tokens = kSequences * (kTokens - 1);
  std::vector<float> gradient(model::GradientSize(shape));
  learner::LeafComputer computer;
  const double rows = kSequences * (kTokens - 1);
  auto once = [&] { computer.Compute(*policy, nullptr, work, spec, {4096, true}, gradient); };
  once();
  Rates rates;
  for (int run = 0; run < kRuns; ++run) {
    constexpr int kRepeats = 5;
    rates.rate.push_back(kRepeats * rows / Seconds([&] {
                           for (int i = 0; i < kRepeats; ++i) once();
                         }));
    rates.limit.push_back(GemmRowsPerSecond(shape, static_cast<std::int64_t>(rows)) / 3.0);
  }
  std::cout << Describe("learner", "trained rows/s, one core",
                        "three times the forward's matrix products alone", rates)
            << "\n";
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main() { return thresher::bench::Main(); }
