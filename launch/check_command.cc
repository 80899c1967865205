#include <cstdio>
#include <iostream>
#include <sstream>
#include <thread>

#include "common/backend/gpus.h"
#include "common/base/random.h"
#include "common/config/broker_memory.h"
#include "common/log/log.h"
#include "launch/commands.h"
#include "launch/estimate.h"
#include "launch/examples.h"
#include "launch/gpu_load.h"
#include "launch/progress.h"

namespace thresher::launch {
namespace {

constexpr int kShownNumbers = 4;
constexpr int kShownPrompts = 2;

void DescribeSteps(std::ostream& out, const Config& config, const RunEstimate& e) {
  const Plan plan(config);
  out << "steps: " << plan.supervised_steps() << " supervised x " << config.supervised.batch
      << " traces, " << plan.rl_steps() << " rl x " << config.rl.groups << " groups x "
      << config.rl.group_size << " samples\n";
  out << "samples: " << e.supervised_samples << " supervised, " << e.train_samples << " train, "
      << e.eval_samples << " eval; at most " << e.generated_tokens << " generated tokens\n";
  for (const EvalRound& round : plan.evals()) {
    out << "evaluation '" << round.label << "': version " << round.version.ToString() << ", "
        << round.items << " held-out items x " << round.samples << " samples\n";
  }
  out << "model: " << e.parameters << " parameters, " << ShortBytes(double(e.weights_bytes))
      << ", vocabulary " << e.shape.vocab << "\n";
}

void DescribeGpuParts(std::ostream& out, const ProcessEstimate& process) {
  if (process.gpu_parts.empty()) return;
  out << "  on its GPU: about " << ShortBytes(double(process.GpuBytes()));
  if (process.gpu_least < process.GpuBytes()) {
    out << ", at least " << ShortBytes(double(process.gpu_least));
  }
  out << "\n";
  for (const auto& part : process.gpu_parts) {
    out << "    " << part.what << ": " << ShortBytes(double(part.bytes)) << "\n";
  }
}

// Of each GPU, or why that cannot be said here.
void DescribeGpus(std::ostream& out, const Config& config, const RunEstimate& e,
                  const backend::Gpus& gpus) {
  if (gpus.list.empty()) {
    out << "GPUs: none to compare with (" << gpus.status.message() << ")\n";
    return;
  }
  for (const GpuLoad& load : LoadsOf(config, e, static_cast<int>(gpus.list.size()))) {
    const backend::Gpu& gpu = gpus.list[static_cast<std::size_t>(load.index)];
    out << "GPU cuda:" << load.index << " (" << gpu.name << "): " << load.actors << " actors, "
        << load.ranks << " learner ranks, about " << ShortBytes(double(load.most)) << " of "
        << ShortBytes(double(gpu.total_bytes)) << "\n";
  }
}

void DescribeParts(std::ostream& out, const std::vector<ProcessEstimate::Part>& parts,
                   const std::string& whose) {
  for (const auto& part : parts) {
    out << "  " << part.what << whose << ": " << ShortBytes(double(part.bytes)) << "\n";
  }
}

void DescribeProcesses(std::ostream& out, const RunEstimate& e) {
  std::uint64_t total = 0;
  int threads = 0;
  for (const ProcessEstimate& process : e.processes) {
    total += process.AllBytes();
    threads += process.name == "broker" ? 0 : process.count * process.threads;
    out << "process " << process.name << ": " << process.count << " x " << process.threads
        << " threads, about " << ShortBytes(double(process.TotalBytes())) << " each";
    if (!process.first_parts.empty()) {
      out << ", the first " << ShortBytes(double(process.FirstBytes()));
    }
    out << "\n";
    DescribeParts(out, process.parts, "");
    DescribeParts(out, process.first_parts, " (the first)");
    DescribeGpuParts(out, process);
  }
  const auto memory = double(MachineMemory());
  out << "memory: about " << ShortBytes(double(total)) << " of this machine's "
      << ShortBytes(memory) << (double(total) > memory ? ": TOO LITTLE" : "") << "\n";
  out << "threads: " << threads << " that compute, " << std::thread::hardware_concurrency()
      << " cores\n";
}

// "no trajectories (trajectories.keep_bytes)", or from which size on they are deleted.
std::string Beyond(const std::string& what, std::uint64_t bound, std::uint64_t most,
                   const std::string& key) {
  if (bound == 0 || most <= bound) return "no " + what + " (" + key + ")";
  return what + " beyond " + ShortBytes(double(bound)) +
         ", the oldest first, never what a start or a batch needs (" + key + ")";
}

void DescribeDisk(std::ostream& out, const Config& config, const RunEstimate& e) {
  const RetentionEstimate& r = e.retention;
  out << "disk, at most: " << ShortBytes(double(e.disk.TotalBytes())) << " = journal "
      << ShortBytes(double(e.disk.journal)) << " + trajectories "
      << ShortBytes(double(e.disk.trajectories)) << " before compression + weights "
      << ShortBytes(double(e.disk.weights)) << " + checkpoints "
      << ShortBytes(double(e.disk.checkpoints)) << "\n";
  out << "replay window: versions 0." << r.first_retained << " to 0."
      << r.first_retained + r.retained - 1 << ", " << r.retained << " of " << r.published
      << " published, " << ShortBytes(double(e.disk.weights)) << " (weights.retain)\n";
  out << "retention deletes: " << r.published - r.retained << " of " << r.published
      << " weight versions, the oldest first; " << r.checkpoints - r.checkpoints_kept << " of "
      << r.checkpoints << " checkpoints (checkpoint.keep)\n"
      << "retention deletes: "
      << Beyond("journal records", config.journal.keep_bytes, e.disk.journal, "journal.keep_bytes")
      << "; "
      << Beyond("trajectories", config.trajectories.keep_bytes, e.disk.trajectories,
                "trajectories.keep_bytes")
      << "\n";
}

void DescribeSeeds(std::ostream& out, const Config& config, const tasks::Environment& environment) {
  for (Stream stream : {Stream::kTrain, Stream::kEval}) {
    for (std::uint64_t item = 0; item < kShownPrompts; ++item) {
      out << "prompt " << StreamName(stream) << "/0/" << item << ": "
          << Visible(environment.Generate(config.run.seed, stream, item).prompt) << "\n";
    }
  }
  TrajectoryId id{Stream::kTrain, 0, 0, 0};
  RandomStream uniforms(config.run.seed, id, RandomPurpose::kSample);
  auto begin = static_cast<std::uint32_t>(
      1 + environment.Generate(config.run.seed, id.stream, id.item).prompt.size());
  out << "uniform numbers of " << id.ToString() << " from position " << begin << ":";
  for (std::uint32_t i = 0; i < kShownNumbers; ++i) {
    char text[32];
    std::snprintf(text, sizeof text, " %.15f", uniforms.Uniform(begin + i));
    out << text;
  }
  out << "\n";
}

void DescribeExamples(std::ostream& out, const examples::SupervisedSource& source) {
  for (const DataHash& data : source.hashes()) {
    out << data.key << " " << Visible(data.path) << ": weight " << data.weight << ", hash "
        << data.hash.ToString() << "\n";
  }
  const examples::SourceCounts& c = source.counts();
  out << "examples: " << c.examples << " to train on, " << c.held_out
      << " to measure; too long: " << c.dropped << " dropped, " << c.truncated << " truncated; "
      << c.tokens << " tokens, " << c.loss_tokens << " of them learned\n";
}

}  // namespace

// Standard output is one YAML document: the resolved configuration, and the plan as comments.
int CheckCommand(const RunOptions& options) {
  Config config = LoadConfig(options.config, options.overrides);
  auto environment = EnvironmentOf(config);
  CheckConsistency(config, *environment);
  const auto source = OpenExamples(config, *environment);
  RunEstimate estimate = Estimate(config, *environment);
  const bool uses_gpus = UsesGpus(config);
  const backend::Gpus gpus = uses_gpus ? backend::FindGpus() : backend::Gpus{};
  if (!gpus.list.empty()) RequireGpus(config, estimate, gpus);
  // A configuration for GPUs is often looked at where there are none.
  const bool here = !uses_gpus || !gpus.list.empty();
  RequireMemory(config, estimate, here ? MachineMemory() : 0);
  std::ostringstream plan;
  DescribeSteps(plan, config, estimate);
  if (source != nullptr) DescribeExamples(plan, *source);
  DescribeProcesses(plan, estimate);
  if (uses_gpus) DescribeGpus(plan, config, estimate, gpus);
  DescribeDisk(plan, config, estimate);
  plan << "largest trajectory: " << estimate.trajectory_bytes << " bytes, in a message of at most "
       << estimate.message_bytes << " (broker.max_message_bytes " << config.broker.max_message_bytes
       << ")\n";
  const BrokerMemory memory = PlanBrokerMemory(config);
  plan << "broker's budget: " << ShortBytes(double(memory.budget)) << " = credit of the actors "
       << ShortBytes(double(memory.credit)) << " + batches " << ShortBytes(double(memory.cache))
       << " + messages " << ShortBytes(double(memory.frames)) << " (broker.memory_bytes); at least "
       << ShortBytes(double(LeastBrokerMemory(config))) << "\n";
  if (config.journal.off()) {
    plan << "journal.mode off: actors keep what they sent until a checkpoint has it, at most "
         << ShortBytes(double(KeptBytes(config))) << " of training\n";
  }
  DescribeSeeds(plan, config, *environment);
  std::cout << ResolvedYaml(config) << "\n# plan\n";
  std::istringstream lines(plan.str());
  for (std::string line; std::getline(lines, line);) std::cout << "# " << line << "\n";
  return kExitOk;
}

}  // namespace thresher::launch
