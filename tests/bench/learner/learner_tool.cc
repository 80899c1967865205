// One rank of the learner's side of a step (README.md; started by run.py): leaves, tree, reduction,
// norm, AdamW, as a run does them. Rank 0 reads lines: each asks for one step, for which it prints
// a line of JSON with the times of all ranks. At the end of its input it prints a hash of the
// weights.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/model/weights.h"
#include "learner/host_optimizer.h"
#include "tests/bench/kernels_limits.h"

namespace thresher::bench {
namespace {

struct Options {
  int vocab = 256, layers = 4, width = 128, heads = 4, kv_heads = 2, ffn_width = 512;
  int tokens = 64, sequences = 64;  // rows of a sequence; sequences of a step, on all ranks
  int leaves = 2, threads = 1;      // leaves of a step; threads of a rank
  int micro_batch = 2048;
  bool mpi = false, recompute = false, make = false;
  std::string weights;
};

model::ModelConfig Shape(const Options& o) {
  model::ModelConfig config;
  config.vocab = o.vocab;
  config.layers = o.layers;
  config.width = o.width;
  config.heads = o.heads;
  config.kv_heads = o.kv_heads;
  config.head_dim = o.width / o.heads;
  config.ffn_width = o.ffn_width;
  config.context = o.tokens + 1;
  config.tied_embeddings = true;
  return config;
}

// The batch of torch_step.py: token t of sequence s. Of a good spread over the vocabulary.
std::int32_t TokenAt(const Options& o, std::int64_t s, std::int64_t t) {
  return static_cast<std::int32_t>((s * 7919 + t * 104729 + t * t * 31) % o.vocab);
}

learner::LeafWork Leaf(const Options& o, int leaf) {
  learner::LeafWork work;
  const int each = o.sequences / o.leaves;
  for (int s = leaf * each; s < (leaf + 1) * each; ++s) {
    learner::TrainSequence sequence;
    const auto rows = static_cast<std::size_t>(o.tokens);
    for (int t = 0; t <= o.tokens; ++t) sequence.tokens.push_back(TokenAt(o, s, t));
    sequence.in_loss.assign(rows, 1);
    sequence.has_behaviour.assign(rows, 1);
    sequence.behaviour_logprob.assign(rows, -std::log(static_cast<float>(o.vocab)));
    sequence.advantage = s % 2 == 0 ? 1.0f : -0.5f;
    work.sequences.push_back(std::move(sequence));
  }
  return work;
}

std::vector<float> InitialOrRead(const Options& o, const model::ModelConfig& shape) {
  std::vector<float> flat(model::ParameterCount(shape));
  const auto bytes = static_cast<std::streamsize>(flat.size() * sizeof(float));
  if (std::ifstream file(o.weights, std::ios::binary);
      !o.make && file.read(reinterpret_cast<char*>(flat.data()), bytes)) {
    return flat;
  }
  flat = model::InitialWeights(shape, 1, 0.02);
  std::ofstream(o.weights, std::ios::binary).write(reinterpret_cast<char*>(flat.data()), bytes);
  return flat;
}

double Now() {
  return std::chrono::duration<double>(SystemClock().Now().time_since_epoch()).count();
}

// Processor time of all threads of this process.
double ProcessorSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double PeakMib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// What a rank says of a step.
struct Report {
  double gradient_s, step_s;          // wall clock: until the gradient is added up; of all
  double gradient_cpu_s, step_cpu_s;  // processor time
  double gflops;                      // of fma chains on this rank's core, just before
  double loss, norm, peak_mib;
};

class Rank {
 public:
  Rank(const Options& o, comm::Communicator* comm)
      : comm_(comm), workers_(o.threads), first_(o.leaves / Ranks() * Index()) {
    const model::ModelConfig shape = Shape(o);
    for (int leaf = first_; leaf < first_ + o.leaves / Ranks(); ++leaf) {
      work_.push_back(Leaf(o, leaf));
    }
    spec_.kind = learner::ObjectiveSpec::Kind::kPolicyGradient;
    spec_.loss_tokens =
        static_cast<std::uint64_t>(o.sequences) * static_cast<std::uint64_t>(o.tokens);
    spec_.sequences = static_cast<std::uint64_t>(o.sequences);
    leaf_.micro_batch_tokens = static_cast<std::size_t>(o.micro_batch);
    leaf_.recompute = o.recompute;
    learner::OptimizerOptions options{shape, {}, 0, work_.size()};
    options.comm = comm_;
    options.adamw.beta1 = 0.9;
    options.adamw.beta2 = 0.999;
    options.adamw.epsilon = 1e-8;
    options.overlap = true;
    optimizer_ = std::make_unique<learner::HostOptimizer>(options, workers_, nullptr);
    (void)optimizer_->Restore(InitialOrRead(o, shape),
                              learner::AdamW::Fresh(model::ParameterCount(shape)));
  }

  int Ranks() const { return comm_ == nullptr ? 1 : static_cast<int>(comm_->size()); }
  int Index() const { return comm_ == nullptr ? 0 : static_cast<int>(comm_->rank().value); }

  Result<Report> Step() {
    Report report{};
    THRESHER_RETURN_IF_ERROR(Meet());
    report.gflops = ArithmeticLimit(kernels::ActiveCpuVariant());
    THRESHER_RETURN_IF_ERROR(Meet());
    const double start = Now(), cpu = ProcessorSeconds();
    learner::LeafStats stats;
    THRESHER_RETURN_IF_ERROR(optimizer_->Compute(nullptr, work_, spec_, leaf_, stats));
    if (comm_ != nullptr) THRESHER_RETURN_IF_ERROR(optimizer_->AddRanks(*comm_));
    report.gradient_s = Now() - start;
    report.gradient_cpu_s = ProcessorSeconds() - cpu;
    THRESHER_ASSIGN_OR_RETURN(report.norm, optimizer_->Norm());
    THRESHER_RETURN_IF_ERROR(optimizer_->Step(1e-6, report.norm > 1 ? 1 / report.norm : 1));
    report.step_s = Now() - start;
    report.step_cpu_s = ProcessorSeconds() - cpu;
    report.loss = stats.loss;
    report.peak_mib = PeakMib();
    return report;
  }

  // The reports of all ranks.
  Result<std::vector<Report>> Gather(const Report& mine) {
    std::vector<Report> all(static_cast<std::size_t>(Ranks()), mine);
    if (comm_ != nullptr) {
      THRESHER_RETURN_IF_ERROR(comm_->AllGather(std::as_bytes(std::span(&mine, 1)),
                                                std::as_writable_bytes(std::span(all)), "report"));
    }
    return all;
  }

  // Of all weights as they are now: the same on any number of ranks.
  std::string WeightsHash() const {
    std::vector<float> room;
    const auto weights = optimizer_->Weights(room).value();
    return HashBytes128(std::as_bytes(weights)).ToString();
  }

  // Whether rank 0 is asked for a step.
  Result<bool> Asked() {
    std::array<std::byte, 1> more{};
    std::string line;
    if (Index() == 0 && std::getline(std::cin, line)) more[0] = std::byte{1};
    if (comm_ != nullptr) {
      THRESHER_RETURN_IF_ERROR(comm_->Broadcast(LearnerRank(0), more, "request"));
    }
    return more[0] != std::byte{0};
  }

 private:
  Status Meet() { return comm_ == nullptr ? Status::Ok() : comm_->Barrier("step"); }

  comm::Communicator* comm_;
  WorkerPool workers_;
  const int first_;
  std::vector<learner::LeafWork> work_;
  learner::ObjectiveSpec spec_;
  learner::LeafOptions leaf_;
  std::unique_ptr<learner::HostOptimizer> optimizer_;
};

// Times are the slowest rank's; processor time, limits and losses add up.
nlohmann::json Joined(const std::vector<Report>& reports) {
  Report sum{};
  for (const Report& r : reports) {
    sum.gradient_s = std::max(sum.gradient_s, r.gradient_s);
    sum.step_s = std::max(sum.step_s, r.step_s);
    sum.gradient_cpu_s += r.gradient_cpu_s;
    sum.step_cpu_s += r.step_cpu_s;
    sum.gflops += r.gflops;
    sum.loss += r.loss;
    sum.norm = r.norm;
    sum.peak_mib = std::max(sum.peak_mib, r.peak_mib);
  }
  return {{"gradient_s", sum.gradient_s},
          {"step_s", sum.step_s},
          {"gradient_cpu_s", sum.gradient_cpu_s},
          {"step_cpu_s", sum.step_cpu_s},
          {"gflops", sum.gflops},
          {"loss", sum.loss},
          {"norm", sum.norm},
          {"peak_mib", sum.peak_mib}};
}

Status Serve(const Options& o, comm::Communicator* comm) {
  Rank rank(o, comm);
  if (rank.Index() == 0) {
    std::cout << nlohmann::json{{"parameters", model::ParameterCount(Shape(o))},
                                {"variant", kernels::CpuVariantName(kernels::ActiveCpuVariant())},
                                {"ranks", rank.Ranks()}}
                     .dump()
              << std::endl;
  }
  while (true) {
    THRESHER_ASSIGN_OR_RETURN(const bool asked, rank.Asked());
    if (!asked) break;
    THRESHER_ASSIGN_OR_RETURN(const Report report, rank.Step());
    THRESHER_ASSIGN_OR_RETURN(const std::vector<Report> all, rank.Gather(report));
    if (rank.Index() == 0) std::cout << Joined(all).dump() << std::endl;
  }
  if (rank.Index() == 0) {
    std::cout << nlohmann::json{{"weights_hash", rank.WeightsHash()}}.dump() << std::endl;
  }
  return Status::Ok();
}

Status Main(const Options& o) {
  if (o.make) {
    (void)InitialOrRead(o, Shape(o));
    return Status::Ok();
  }
  if (!o.mpi) return Serve(o, nullptr);
#ifdef THRESHER_WITH_MPI
  THRESHER_ASSIGN_OR_RETURN(const auto comm, comm::MakeMpi(std::chrono::minutes(10)));
  return Serve(o, comm.get());
#else
  return FailedPrecondition("this build has no MPI");
#endif
}

}  // namespace
}  // namespace thresher::bench

int main(int argc, char** argv) {
  thresher::bench::Options o;
  CLI::App app{"One rank of the learner; see tests/bench/learner/README.md", "learner_tool"};
  app.add_option("--vocab", o.vocab);
  app.add_option("--layers", o.layers);
  app.add_option("--width", o.width);
  app.add_option("--heads", o.heads);
  app.add_option("--kv-heads", o.kv_heads);
  app.add_option("--ffn-width", o.ffn_width);
  app.add_option("--tokens", o.tokens, "rows of a sequence");
  app.add_option("--sequences", o.sequences, "of a step, on all ranks");
  app.add_option("--leaves", o.leaves, "of a step, on all ranks");
  app.add_option("--threads", o.threads, "of a rank");
  app.add_option("--micro-batch", o.micro_batch, "rows");
  app.add_option("--weights", o.weights, "file of the initial weights, fp32")->required();
  app.add_flag("--make", o.make, "write that file, and no more");
  app.add_flag("--mpi", o.mpi, "one of several ranks, started by mpirun");
  app.add_flag("--recompute", o.recompute, "activations are computed again");
  CLI11_PARSE(app, argc, argv);
  const thresher::Status status = thresher::bench::Main(o);
  if (status.ok()) return 0;
  std::fprintf(stderr, "learner_tool: %s\n", status.ToString().c_str());
  return 1;
}
