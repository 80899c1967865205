// Trained rows per second of quickstart's shape, against three times the matrix products of the
// forward pass on one core: of one gradient leaf (forward, loss, backward), and of the learner's
// side of a whole step (packing, eight leaves on two threads, tree, norm, AdamW), a core.
#include <functional>
#include <iostream>

#include "learner/adamw.h"
#include "learner/batch_gradient.h"
#include "tests/bench/model_limit.h"

namespace thresher::bench {
namespace {

constexpr int kRuns = 7, kLeaves = 8, kSequences = 8, kTokens = 24, kThreads = 2;

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

learner::ObjectiveSpec Spec() {
  learner::ObjectiveSpec spec;
  spec.kind = learner::ObjectiveSpec::Kind::kPolicyGradient;
  spec.loss_tokens = kLeaves * kSequences * (kTokens - 1);
  return spec;
}

// Rates of `once`, which trains on `rows` rows with `cores` cores.
Rates Measure(double rows, int cores, const std::function<void()>& once) {
  once();
  Rates rates;
  for (int run = 0; run < kRuns; ++run) {
    constexpr int kRepeats = 40;
    const double seconds = Seconds([&] {
      for (int i = 0; i < kRepeats; ++i) once();
    });
    rates.rate.push_back(kRepeats * rows / seconds / cores);
    rates.limit.push_back(GemmRowsPerSecond(QuickstartShape(), kSequences * (kTokens - 1)) / 3.0);
  }
  return rates;
}

void Print(const std::string& name, const std::string& unit, const Rates& rates) {
  std::cout << Describe(name, unit, "three times the forward's matrix products alone", rates)
            << "\n";
}

int Main() {
  const model::ModelConfig shape = QuickstartShape();
  auto flat = model::InitialWeights(shape, 1, 0.02);
  const std::vector<learner::LeafWork> leaves(kLeaves, MakeWork());
  const double rows = kSequences * (kTokens - 1);

  auto policy = model::PackedModel::Make(shape, flat, 0, true);
  std::vector<float> gradient(model::GradientSize(shape));
  learner::LeafComputer computer(model::MakeCpuTrainingPass(shape));
  Print("leaf", "trained rows/s, one core", Measure(rows, 1, [&] {
          (void)computer.Compute(policy, nullptr, leaves[0], Spec(), {4096, true}, gradient).value();
        }));

  WorkerPool workers(kThreads);
  learner::BatchGradient batch(shape, 0, workers);
  learner::AdamW optimizer({}, model::ParameterList(shape));
  Print("step", "trained rows/s, a core of two", Measure(kLeaves * rows, kThreads, [&] {
          learner::LeafStats stats;
          auto sum = batch.Compute(flat, nullptr, leaves, Spec(), {4096, true}, stats).value();
          std::span<float> values(sum.data(), flat.size());
          const double norm = learner::BlockedNorm(values, &workers);
          optimizer.Step(flat, values, 1e-6, norm > 1 ? 1 / norm : 1, &workers);
          batch.Recycle(std::move(sum));
        }));
  return 0;
}

}  // namespace
}  // namespace thresher::bench

int main() { return thresher::bench::Main(); }
