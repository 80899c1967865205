#include "learner/batch.h"

#include <algorithm>
#include <numeric>

#include "common/base/random.h"
#include "common/wire/records.h"
#include "learner/advantage.h"
#include "learner/gather.h"

namespace thresher::learner {
namespace {

using Leaves = std::vector<std::vector<Trajectory>>;

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
};
struct Whole {
  PartHeader header;
  std::vector<PartEntry> entries;  // canonical order over all ranks
  std::size_t mine_begin = 0;      // my first entry
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
                   const StepPlan& plan, std::uint32_t lineage, Leaves& leaves,
                   PartHeader& header) {
  const LeafRange mine = LeavesOf(comm, config);
  for (std::uint32_t leaf = mine.begin; leaf < mine.begin + mine.count; ++leaf) {
    THRESHER_RETURN_IF_ERROR(session.Prefetch(
        lineage, plan.step, leaf, std::min(kLeavesAhead, mine.begin + mine.count - leaf)));
    THRESHER_ASSIGN_OR_RETURN(LeafBytes bytes, session.Fetch(lineage, plan.step, leaf));
    header.broker_digest = bytes.batch_digest;
    header.trajectories = bytes.batch_trajectories;
    header.loss_tokens = bytes.batch_loss_tokens;
    auto& trajectories = leaves.emplace_back();
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

Result<Whole> ShareEntries(comm::Communicator& comm, const Leaves& leaves,
                           const PartHeader& header) {
  BlobWriter writer;
  writer.Put(header);
  for (const auto& leaf : leaves) {
    for (const Trajectory& t : leaf) {
      writer.Put(PartEntry{t.id, t.ContentHash(), t.outcome.reward});
    }
  }
  THRESHER_ASSIGN_OR_RETURN(auto blobs, GatherBlobs(comm, writer.Take(), "batch entries"));
  Whole whole;
  whole.header = header;
  for (std::size_t r = 0; r < blobs.size(); ++r) {
    if (r == comm.rank().value) whole.mine_begin = whole.entries.size();
    BlobReader reader(blobs[r]);
    whole.header.stopped |= reader.Get<PartHeader>().stopped;
    while (!reader.done()) whole.entries.push_back(reader.Get<PartEntry>());
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
std::vector<std::size_t> GroupSizes(const std::vector<Trajectory>& leaf) {
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < leaf.size(); ++i) {
    if (i == 0 || leaf[i].id.item != leaf[i - 1].id.item) sizes.push_back(0);
    ++sizes.back();
  }
  return sizes;
}

std::vector<double> Rewards(const Whole& whole, const Config& config, const StepPlan& plan) {
  std::vector<double> rewards;
  for (const PartEntry& e : whole.entries) rewards.push_back(e.reward);
  if (plan.phase != Phase::kRl || !config.rl.permute_rewards) return rewards;
  std::vector<double> permuted(rewards.size());
  auto order = RewardPermutation(config.run.seed, plan.step, rewards.size());
  for (std::size_t i = 0; i < order.size(); ++i) permuted[i] = rewards[order[i]];
  return permuted;
}

}  // namespace

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
  Leaves leaves;
  PartHeader header;
  Status fetched = FetchLeaves(session, comm, config, plan, lineage, leaves, header);
  if (fetched.ok()) fetched = ready();
  if (fetched.code() == StatusCode::kCancelled) {
    header.stopped = 1;
    leaves.clear();
  } else if (!fetched.ok()) {
    return fetched;
  }
  THRESHER_ASSIGN_OR_RETURN(Whole whole, ShareEntries(comm, leaves, header));
  StepBatch batch;
  batch.stopped = whole.header.stopped != 0;
  if (batch.stopped) return batch;
  THRESHER_RETURN_IF_ERROR(CheckDigest(whole, plan, batch.digest));
  batch.trajectories = header.trajectories;
  batch.loss_tokens = header.loss_tokens;
  for (const PartEntry& e : whole.entries) batch.reward_mean += e.reward;
  if (!whole.entries.empty()) batch.reward_mean /= static_cast<double>(whole.entries.size());

  std::vector<double> rewards = Rewards(whole, config, plan);
  std::size_t next = whole.mine_begin;
  for (const auto& leaf : leaves) {
    std::vector<float> advantages = GroupAdvantages(std::span(rewards).subspan(next, leaf.size()),
                                                    GroupSizes(leaf), config.rl.normalise_std);
    next += leaf.size();
    auto& work = batch.leaves.emplace_back();
    for (std::size_t i = 0; i < leaf.size(); ++i) {
      work.sequences.push_back(PrepareSequence(leaf[i], advantages[i]));
    }
  }
  return batch;
}

}  // namespace thresher::learner
