#include "learner/batch.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/wire/records.h"
#include "learner/advantage.h"
#include "learner/gather.h"
#include "learner/objective_config.h"

namespace thresher::learner {
namespace {

// What ranks tell each other about their part of a batch.
struct PartHeader {
  std::uint8_t stopped = 0;
  Hash128 broker_digest;
  std::uint64_t trajectories = 0, loss_tokens = 0;
};
struct PartEntry {
  TrajectoryId id;
  Hash128 content_hash;
  double reward = 0;
  std::uint32_t leaf = 0;         // of the whole batch's
  std::uint32_t loss_tokens = 0;  // 0: masked
  std::uint32_t length = 0;       // tokens that the policy drew
};
struct Whole {
  PartHeader header;
  std::vector<PartEntry> entries;          // canonical order over all ranks
  std::vector<std::vector<double>> steps;  // of each, its rewards of steps, if these are compared
  std::size_t mine_begin = 0;              // my first entry
};

// Leaves that are on their way while others are decoded or computed: enough to hide the way, and so
// many answers in memory at most.
constexpr std::uint32_t kLeavesAhead = 16;

struct LeafRange {
  std::uint32_t begin = 0, count = 0;
};

LeafRange LeavesOf(const comm::Communicator& comm, const Config& config) {
  const auto count = static_cast<std::uint32_t>(config.learner.grad_leaves) / comm.size();
  return {comm.rank().value * count, count};
}

Status FetchLeaves(Session& session, comm::Communicator& comm, const Config& config,
                   const StepPlan& plan, std::uint32_t lineage, FetchedPart& part) {
  const LeafRange mine = LeavesOf(comm, config);
  for (std::uint32_t leaf = mine.begin; leaf < mine.begin + mine.count; ++leaf) {
    THRESHER_RETURN_IF_ERROR(session.Prefetch(
        lineage, plan.step, leaf, std::min(kLeavesAhead, mine.begin + mine.count - leaf)));
    THRESHER_ASSIGN_OR_RETURN(LeafBytes bytes, session.Fetch(lineage, plan.step, leaf));
    part.broker_digest = bytes.batch_digest;
    part.trajectories = bytes.batch_trajectories;
    part.loss_tokens = bytes.batch_loss_tokens;
    auto& trajectories = part.leaves.emplace_back();
    for (const SharedBytes& record : bytes.records) {
      auto trajectory = wire::DecodeTrajectory(record);
      if (!trajectory.ok()) {
        return trajectory.status().WithContext("step " + std::to_string(plan.step) + " leaf " +
                                               std::to_string(leaf));
      }
      trajectories.push_back(std::move(trajectory).value());
    }
  }
  return Status::Ok();
}

PartEntry EntryOf(const Trajectory& t, std::uint32_t leaf, const ObjectiveConfig& objective) {
  PartEntry entry{t.id, t.ContentHash(), t.outcome.reward, leaf};
  const bool masked = objective.mask_truncated && t.finish == FinishReason::kLength;
  for (const Segment& segment : t.segments) {
    const std::uint32_t tokens = segment.end - segment.begin;
    if (segment.role == Role::kPolicy) entry.length += tokens;
    // Nothing predicts the first token.
    if (segment.in_loss && !masked) entry.loss_tokens += tokens - (segment.begin == 0 ? 1 : 0);
  }
  return entry;
}

void PutSteps(const Trajectory& trajectory, const ObjectiveConfig& objective, BlobWriter& writer) {
  if (!ComparesSteps(objective)) return;
  const std::vector<std::uint8_t> in_loss = PrepareSequence(trajectory, 0).in_loss;
  const std::vector<StepReward> steps = StepRewardsOf(trajectory, in_loss);
  writer.Put(static_cast<std::uint64_t>(steps.size()));
  for (const StepReward& step : steps) writer.Put(step.value);
}

std::vector<double> GetSteps(BlobReader& reader) {
  std::vector<double> steps(reader.Get<std::uint64_t>());
  for (double& step : steps) step = reader.Get<double>();
  return steps;
}

Result<Whole> ShareEntries(comm::Communicator& comm, const Config& config,
                           const FetchedPart& part) {
  const PartHeader header{part.stopped, part.broker_digest, part.trajectories, part.loss_tokens};
  BlobWriter writer;
  writer.Put(header);
  std::uint32_t leaf = LeavesOf(comm, config).begin;
  for (const auto& trajectories : part.leaves) {
    for (const Trajectory& t : trajectories) {
      writer.Put(EntryOf(t, leaf, config.objective));
      PutSteps(t, config.objective, writer);
    }
    ++leaf;
  }
  THRESHER_ASSIGN_OR_RETURN(auto blobs, GatherBlobs(comm, writer.Take(), "batch entries"));
  Whole whole;
  whole.header = header;
  for (std::size_t r = 0; r < blobs.size(); ++r) {
    if (r == comm.rank().value) whole.mine_begin = whole.entries.size();
    BlobReader reader(blobs[r]);
    whole.header.stopped |= reader.Get<PartHeader>().stopped;
    while (!reader.done()) {
      whole.entries.push_back(reader.Get<PartEntry>());
      if (ComparesSteps(config.objective)) whole.steps.push_back(GetSteps(reader));
    }
  }
  return whole;
}

Status CheckDigest(const Whole& whole, const StepPlan& plan, Hash128& digest) {
  std::vector<wire::BatchEntry> entries;
  for (const PartEntry& e : whole.entries) entries.push_back({e.id, e.content_hash});
  digest = wire::HashBatch(entries);
  if (digest == whole.header.broker_digest) return Status::Ok();
  return DataLoss("step " + std::to_string(plan.step) + ": the batch's digest is " +
                  digest.ToString() + ", the broker's " + whole.header.broker_digest.ToString());
}

// Sizes of runs of equal items.
std::vector<std::size_t> GroupSizes(const std::vector<PartEntry>& entries) {
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i == 0 || entries[i].id.item != entries[i - 1].id.item) sizes.push_back(0);
    ++sizes.back();
  }
  return sizes;
}

// What answers gain by being shorter than the others of their group.
void RewardLengths(const Whole& whole, const ObjectiveConfig& objective,
                   std::vector<Scored>& samples) {
  if (objective.length_reward == 0) return;
  std::size_t begin = 0;
  for (std::size_t size : GroupSizes(whole.entries)) {
    std::vector<AnswerLength> group;
    for (std::size_t i = begin; i < begin + size; ++i) {
      group.push_back({whole.entries[i].length, samples[i].reward >= objective.accept});
    }
    const std::vector<double> rewards = LengthRewards(group);
    for (std::size_t i = 0; i < size; ++i) {
      samples[begin + i].reward += objective.length_reward * rewards[i];
    }
    begin += size;
  }
}

// What the estimator compares: rewards, permuted if so configured, with what their lengths bring,
// less what long answers cost.
std::vector<Scored> ScoredSamples(const Whole& whole, const Config& config, const StepPlan& plan) {
  std::vector<Scored> samples;
  for (const PartEntry& e : whole.entries) samples.push_back({e.reward, e.loss_tokens});
  if (config.rl.permute_rewards) {
    const auto order = RewardPermutation(config.run.seed, plan.step, samples.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      samples[i].reward = whole.entries[order[i]].reward;
    }
  }
  RewardLengths(whole, config.objective, samples);
  const auto longest = static_cast<std::uint64_t>(config.sampling.max_new_tokens);
  const auto buffer = static_cast<std::uint64_t>(
      std::llround(config.objective.overlong_share * static_cast<double>(longest)));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i].reward -= config.objective.overlong_penalty *
                         OverlongPenalty(whole.entries[i].length, longest, buffer);
  }
  return samples;
}

// What the metrics say of the samples and their advantages.
void NoteAdvantages(const std::vector<double>& advantages, StepBatch& batch) {
  double shaped = 0, size = 0;
  for (std::size_t i = 0; i < advantages.size(); ++i) {
    shaped += batch.samples[i].reward;
    size += std::abs(advantages[i]);
  }
  const double count = static_cast<double>(advantages.size());
  if (count == 0) return;
  batch.metrics["reward_shaped"] = shaped / count;
  batch.metrics["advantage_size"] = size / count;
}

std::vector<double> AdvantagesOf(const Config& config, StepBatch& batch) {
  std::vector<double> advantages = Advantages(EstimatorOf(config.objective), batch.samples,
                                              batch.group_sizes, config.objective.accept);
  NoteAdvantages(advantages, batch);
  return advantages;
}

// The advantages of the last tokens, and each sample's scale for the others.
std::vector<double> CompareSteps(const Whole& whole, const Config& config, StepBatch& batch) {
  std::vector<double> advantages;
  double sum = 0;
  std::size_t begin = 0;
  for (std::size_t size : batch.group_sizes) {
    std::vector<double> rewards;
    for (std::size_t i = begin; i < begin + size; ++i) {
      rewards.push_back(batch.samples[i].reward);
      rewards.insert(rewards.end(), whole.steps[i].begin(), whole.steps[i].end());
      for (double step : whole.steps[i]) sum += step;
    }
    const RewardScale scale = RewardScaleOf(EstimatorOf(config.objective), rewards);
    batch.scales.insert(batch.scales.end(), size, scale);
    for (std::size_t i = begin; i < begin + size; ++i) {
      advantages.push_back((batch.samples[i].reward - scale.mean) * scale.scale);
    }
    begin += size;
  }
  if (!advantages.empty()) {
    batch.metrics["reward_steps"] = sum / static_cast<double>(advantages.size());
  }
  NoteAdvantages(advantages, batch);
  return advantages;
}

// Masks sequences out of the whole batch's loss that the estimator does not accept.
std::vector<double> FirstAdvantages(Whole& whole, const Config& config, const StepPlan& plan,
                                    StepBatch& batch) {
  batch.samples = ScoredSamples(whole, config, plan);
  batch.group_sizes = GroupSizes(whole.entries);
  batch.mine_begin = whole.mine_begin;
  std::vector<double> advantages = ComparesSteps(config.objective)
                                       ? CompareSteps(whole, config, batch)
                                       : AdvantagesOf(config, batch);
  const bool accepts = EstimatorOf(config.objective) == Estimator::kAccepted;
  double reward = 0;
  for (std::size_t i = 0; i < advantages.size(); ++i) {
    reward += whole.entries[i].reward;
    if (accepts && advantages[i] == 0) whole.entries[i].loss_tokens = 0;
  }
  if (!advantages.empty())
    batch.metrics["reward"] = reward / static_cast<double>(advantages.size());
  return advantages;
}

void CountMinibatches(const Whole& whole, StepBatch& batch) {
  for (const PartEntry& e : whole.entries) {
    Minibatch& part = batch.minibatches[e.leaf % batch.minibatches.size()];
    part.loss_tokens += e.loss_tokens;
    part.sequences += e.loss_tokens > 0 ? 1 : 0;
  }
}

// The sequence as it is trained on; masked if its entry says so.
TrainSequence SequenceOf(const Trajectory& trajectory, const PartEntry& entry, double advantage) {
  TrainSequence sequence = PrepareSequence(trajectory, advantage);
  sequence.reward = advantage;  // with a critic it is
  if (entry.loss_tokens == 0) std::ranges::fill(sequence.in_loss, std::uint8_t{0});
  return sequence;
}

// Of sample `index` of the batch.
void AddStepRewards(const Trajectory& trajectory, const ObjectiveConfig& objective,
                    const StepBatch& batch, std::size_t index, TrainSequence& sequence) {
  if (!LearnsFromSteps(objective)) return;
  std::vector<StepReward> steps = StepRewardsOf(trajectory, PrepareSequence(trajectory, 0).in_loss);
  if (!ComparesSteps(objective)) {
    sequence.step_rewards = std::move(steps);
    return;
  }
  sequence.values.advantage =
      ProcessAdvantages(batch.scales[index], steps, batch.samples[index].reward, sequence.in_loss);
}

}  // namespace

std::vector<LeafWork*> OwnLeaves(StepBatch& batch) {
  std::vector<LeafWork*> out;
  const std::size_t parts = batch.minibatches.size();
  for (std::size_t i = 0; i / parts < batch.minibatches[i % parts].leaves.size(); ++i) {
    out.push_back(&batch.minibatches[i % parts].leaves[i / parts]);
  }
  return out;
}

void PenaliseSamples(const Config& config, std::span<const double> penalties, StepBatch& batch) {
  THRESHER_CHECK(penalties.size() == batch.samples.size(), "penalties of another batch");
  if (penalties.empty()) return;
  double sum = 0;
  for (double penalty : penalties) sum += penalty;
  batch.metrics["reward_penalty"] = sum / static_cast<double>(penalties.size());
  if (config.objective.critic != "none") return;
  for (std::size_t i = 0; i < penalties.size(); ++i) batch.samples[i].reward -= penalties[i];
  const std::vector<double> advantages = AdvantagesOf(config, batch);
  std::size_t next = batch.mine_begin;
  for (LeafWork* leaf : OwnLeaves(batch)) {
    for (TrainSequence& sequence : leaf->sequences) sequence.advantage = advantages[next++];
  }
}

std::vector<std::size_t> RewardPermutation(std::uint64_t seed, std::uint32_t step, std::size_t n) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  RandomSequence random(seed, TrajectoryId{Stream::kTrain, 0, step, 0}, RandomPurpose::kControl);
  for (std::size_t i = n; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

Status PrefetchBatch(Session& session, const comm::Communicator& comm, const Config& config,
                     std::uint32_t step, std::uint32_t lineage) {
  const LeafRange mine = LeavesOf(comm, config);
  return session.Prefetch(lineage, step, mine.begin, std::min(kLeavesAhead, mine.count));
}

Result<StepBatch> FetchBatch(Session& session, comm::Communicator& comm, const Config& config,
                             const StepPlan& plan, std::uint32_t lineage,
                             const std::function<Status()>& ready) {
  FetchedPart part;
  Status fetched = FetchLeaves(session, comm, config, plan, lineage, part);
  if (fetched.ok()) fetched = ready();
  if (fetched.code() == StatusCode::kCancelled) {
    part.stopped = true;
    part.leaves.clear();
  } else if (!fetched.ok()) {
    return fetched;
  }
  return MakeBatch(comm, config, plan, part);
}

Result<StepBatch> MakeBatch(comm::Communicator& comm, const Config& config, const StepPlan& plan,
                            const FetchedPart& part) {
  THRESHER_ASSIGN_OR_RETURN(Whole whole, ShareEntries(comm, config, part));
  StepBatch batch;
  batch.stopped = whole.header.stopped != 0;
  if (batch.stopped) return batch;
  THRESHER_RETURN_IF_ERROR(CheckDigest(whole, plan, batch.digest));
  batch.trajectories = part.trajectories;
  batch.loss_tokens = part.loss_tokens;
  const bool rl = plan.phase == Phase::kRl;
  std::vector<double> advantages(whole.entries.size());
  if (rl) advantages = FirstAdvantages(whole, config, plan, batch);
  batch.minibatches.resize(rl ? static_cast<std::size_t>(config.rl.minibatches) : 1);
  CountMinibatches(whole, batch);
  const bool keep_old = rl && config.rl.epochs > 1 && config.objective.old == "recomputed";
  std::size_t next = whole.mine_begin;
  for (std::size_t i = 0; i < part.leaves.size(); ++i) {
    auto& work = batch.minibatches[i % batch.minibatches.size()].leaves.emplace_back();
    for (const Trajectory& trajectory : part.leaves[i]) {
      TrainSequence& sequence = work.sequences.emplace_back(
          SequenceOf(trajectory, whole.entries[next], advantages[next]));
      if (rl) AddStepRewards(trajectory, config.objective, batch, next, sequence);
      if (keep_old) sequence.old = std::make_shared<std::vector<float>>();
      ++next;
    }
  }
  return batch;
}

}  // namespace thresher::learner
