// One rank of the measurement of what of the reduction of gradients is hidden behind the backward
// pass (README.md; started by `run`). Steps with overlap and without alternate; each begins when
// both ranks are there. Rank 0 prints a line of JSON.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/model/weights.h"
#include "learner/host_optimizer.h"

namespace thresher::bench {
namespace {

struct Options {
  int layers = 12, width = 256, tokens = 256, sequences = 4, leaves = 2, steps = 5;
  std::uint64_t bucket_bytes = 4u << 20;
};

model::ModelConfig Shape(const Options& o) {
  model::ModelConfig config;
  config.family = "llama";
  config.vocab = 256;
  config.layers = o.layers;
  config.width = o.width;
  config.head_dim = 32;
  config.heads = config.kv_heads = o.width / config.head_dim;
  config.ffn_width = 4 * o.width;
  config.context = o.tokens;
  config.tied_embeddings = true;
  return config;
}

std::vector<learner::LeafWork> Work(const Options& o, std::uint32_t rank) {
  std::vector<learner::LeafWork> leaves(static_cast<std::size_t>(o.leaves));
  for (auto& leaf : leaves) {
    for (int s = 0; s < o.sequences; ++s) {
      learner::TrainSequence sequence;
      const auto rows = static_cast<std::size_t>(o.tokens - 1);
      for (int t = 0; t < o.tokens; ++t) {
        sequence.tokens.push_back((t * 5 + s + static_cast<int>(rank)) % 256);
      }
      sequence.in_loss.assign(rows, 1);
      sequence.has_behaviour.assign(rows, 1);
      sequence.behaviour_logprob.assign(rows, -3.0f);
      sequence.advantage = s % 2 == 0 ? 1.0f : -1.0f;
      leaf.sequences.push_back(std::move(sequence));
    }
  }
  return leaves;
}

double MillisecondsSince(TimePoint start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Times {
  std::vector<double> compute, wait, reduce;
};

// A rank with its ways of a step: the one optimiser overlaps, the other does not.
class Rank {
 public:
  Rank(comm::Communicator& comm, const Options& o)
      : comm_(comm), work_(Work(o, comm.rank().value)), workers_(1) {
    spec_.kind = learner::ObjectiveSpec::Kind::kPolicyGradient;
    spec_.loss_tokens = comm.size() * static_cast<std::uint64_t>(o.leaves * o.sequences) *
                        static_cast<std::uint64_t>(o.tokens - 1);
    leaf_.micro_batch_tokens = static_cast<std::size_t>(o.sequences * o.tokens);
    const model::ModelConfig shape = Shape(o);
    parameters_ = model::ParameterCount(shape);
    for (const bool overlap : {false, true}) {
      learner::OptimizerOptions options{shape, {}, 0, work_.size()};
      options.comm = &comm;
      options.adamw.beta1 = 0.9;
      options.adamw.beta2 = 0.999;
      options.adamw.epsilon = 1e-8;
      options.overlap = overlap;
      options.bucket_bytes = o.bucket_bytes;
      auto& made = ways_[overlap ? 1 : 0];
      made = std::make_unique<learner::HostOptimizer>(options, workers_, nullptr);
      (void)made->Restore(model::InitialWeights(shape, 1, 0.02),
                          learner::AdamW::Fresh(parameters_));
    }
  }

  Status Step(bool overlap, Times& times) {
    learner::HostOptimizer& optimizer = *ways_[overlap ? 1 : 0];
    learner::LeafStats stats;
    THRESHER_RETURN_IF_ERROR(comm_.Barrier("step"));
    TimePoint start = SystemClock().Now();
    THRESHER_RETURN_IF_ERROR(optimizer.Compute(nullptr, work_, spec_, leaf_, stats));
    times.compute.push_back(MillisecondsSince(start));
    // Without overlap the other rank's delay is no time on the wire.
    if (!overlap) THRESHER_RETURN_IF_ERROR(comm_.Barrier("computed"));
    THRESHER_RETURN_IF_ERROR(optimizer.AddRanks(comm_));
    const auto figures = optimizer.TakeSyncFigures();
    times.wait.push_back(figures.wait_ms);
    times.reduce.push_back(figures.reduce_ms);
    THRESHER_ASSIGN_OR_RETURN(const double norm, optimizer.Norm());
    return optimizer.Step(1e-4, 1 / norm);
  }

  bool SameWeights() const {
    std::vector<float> room;
    const auto a = ways_[0]->Weights(room).value(), b = ways_[1]->Weights(room).value();
    return HashBytes128(std::as_bytes(a)) == HashBytes128(std::as_bytes(b));
  }
  std::size_t parameters() const { return parameters_; }

 private:
  comm::Communicator& comm_;
  const std::vector<learner::LeafWork> work_;
  WorkerPool workers_;
  learner::ObjectiveSpec spec_;
  learner::LeafOptions leaf_;
  std::size_t parameters_ = 0;
  std::unique_ptr<learner::HostOptimizer> ways_[2];
};

Status Measure(comm::Communicator& comm, const Options& o) {
  Rank rank(comm, o);
  Times apart, together, unread;
  for (const bool overlap : {false, true}) THRESHER_RETURN_IF_ERROR(rank.Step(overlap, unread));
  for (int step = 0; step < o.steps; ++step) {
    THRESHER_RETURN_IF_ERROR(rank.Step(false, apart));
    THRESHER_RETURN_IF_ERROR(rank.Step(true, together));
  }
  if (!rank.SameWeights()) return DataLoss("overlap has changed the weights");
  std::vector<double> hidden;
  for (std::size_t i = 0; i < apart.wait.size(); ++i) {
    hidden.push_back(1 - together.wait[i] / apart.reduce[i]);
  }
  if (comm.rank().value != 0) return Status::Ok();
  const nlohmann::json out = {{"parameters", rank.parameters()},
                              {"bucket_bytes", o.bucket_bytes},
                              {"ranks", comm.size()},
                              {"steps", o.steps},
                              {"compute_ms", Median(apart.compute)},
                              {"compute_overlapped_ms", Median(together.compute)},
                              {"wire_ms", Median(apart.reduce)},
                              {"wait_ms", Median(together.wait)},
                              {"hidden_share", Median(hidden)},
                              {"hidden_shares", hidden},
                              {"same_weights", true}};
  std::cout << out.dump() << std::endl;
  return Status::Ok();
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  thresher::bench::Options o;
  CLI::App app{"One rank of two; start them with tests/bench/overlap/run", "overlap_bench"};
  app.add_option("--layers", o.layers);
  app.add_option("--width", o.width);
  app.add_option("--tokens", o.tokens, "of a sequence");
  app.add_option("--sequences", o.sequences, "of a leaf, which is one micro-batch");
  app.add_option("--leaves", o.leaves, "of a rank");
  app.add_option("--steps", o.steps, "of each kind");
  app.add_option("--bucket-bytes", o.bucket_bytes);
  CLI11_PARSE(app, argc, argv);
  auto comm = thresher::comm::MakeMpi(std::chrono::minutes(2));
  const thresher::Status status = comm.ok() ? thresher::bench::Measure(**comm, o) : comm.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "overlap_bench: %s\n", status.ToString().c_str());
  return 1;
}
