// The builder of small_run.h, and that the audit finds it sound.
#include "tests/unit/launch/small_run.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/model/run_context.h"
#include "launch/audit.h"
#include "tests/unit/launch/run_editor.h"
#include "tests/unit/launch/temporary_folder.h"

namespace thresher::launch {
namespace {

constexpr std::uint32_t kTokens = 6, kPrompt = 2;

Config SmallConfig() {
  return ParseConfig("", "test",
                     {"supervised.steps=2", "supervised.batch=3", "supervised.warmup_steps=0",
                      "rl.steps=2", "rl.groups=2", "rl.group_size=2", "eval.items=2",
                      "eval.samples=2", "checkpoint.every=1", "learner.grad_leaves=2"});
}

// Bytes of the form of a published file: length, header, floats.
std::string Blob(std::uint32_t step, Hash128* floats) {
  std::string values = "weights of step " + std::to_string(step);
  *floats = HashText128(values);
  return std::string("\x02\0\0\0\0\0\0\0{}", 10) + values;
}

}  // namespace

SmallRun::SmallRun(const std::filesystem::path& run)
    : run_(run), config_(SmallConfig()), plan_(config_), run_identity_{7, 7} {}

void SmallRun::Accept(const TrajectoryId& id, PolicyVersion version, double reward) {
  const bool sampled = id.stream != Stream::kSupervised;
  Trajectory t;
  t.id = id;
  t.group_size = sampled ? 2 : 1;
  t.pinned = version;
  t.instance_hash = {id.stream == Stream::kEval ? 2u : 1u, id.item + 1};
  t.task = "countdown";
  for (std::uint32_t i = 0; i < kTokens; ++i) t.tokens.push_back(static_cast<std::int32_t>(i + 4));
  t.segments = {{0, kPrompt, Role::kPrompt, false}, {kPrompt, kTokens, Role::kPolicy, true}};
  if (sampled) {
    t.logprobs.assign(kTokens - kPrompt, -0.5f - static_cast<float>(id.item));
    t.versions = {{kPrompt, kTokens, version}};
    t.kv_history = {{0, kTokens - 1, version, false}};
  }
  t.finish = sampled ? FinishReason::kStop : FinishReason::kReference;
  t.outcome.score = t.outcome.reward = reward;
  t.outcome.reason = reward > 0 ? "solved" : "wrong_target";
  t.actor = ActorId(static_cast<std::uint32_t>(id.item % 2));
  t.incarnation = Incarnation(11 + t.actor.value);
  t.run_identity = run_identity_;
  trajectories_.push_back(t);
  journal_.push_back(wire::SampleAccepted{id, t.ContentHash(), t.actor.value, t.incarnation,
                                          t.OldestVersion(), reward, kTokens - kPrompt,
                                          t.instance_hash, t.outcome.kind, false, false});
}

std::vector<wire::BatchEntry> SmallRun::EntriesOf(const std::vector<TrajectoryId>& ids) const {
  std::vector<wire::BatchEntry> entries;
  for (const TrajectoryId& id : ids) {
    for (const Trajectory& t : trajectories_) {
      if (t.id == id) entries.push_back({id, t.ContentHash()});
    }
  }
  return entries;
}

// In an RL step the first group has variance and is trained, the second has none and is dropped.
void SmallRun::Train(std::uint32_t step) {
  StepPlan s = plan_.Step(step);
  const bool rl = s.phase == Phase::kRl;
  PolicyVersion version{0, rl ? step : 0};
  journal_.push_back(
      wire::ItemsIssued{s.stream, 0, s.first_item, s.items, s.samples, step, 0, version});
  wire::BatchComposed batch;
  batch.step = step;
  for (std::uint64_t i = 0; i < s.items; ++i) {
    for (std::uint32_t k = 0; k < s.samples; ++k) {
      TrajectoryId id{s.stream, 0, s.first_item + i, k};
      Accept(id, version, !rl || (i == 0 && k == 0) ? 1 : 0);
      if (!rl || i == 0) batch.ids.push_back(id);
    }
  }
  for (std::uint32_t k = 0; rl && k < s.samples; ++k) {
    TrajectoryId id{s.stream, 0, s.first_item + 1, k};
    journal_.push_back(wire::SampleDropped{id, wire::DropReason::kZeroVariance, step});
  }
  batch.digest = wire::HashBatch(EntriesOf(batch.ids));
  batch.loss_tokens = batch.ids.size() * (kTokens - kPrompt);
  journal_.push_back(batch);
  chain_ = wire::HashChain(chain_, batch.digest);
  blob_ = Blob(step + 1, &state_hash_);
  std::uint64_t audited = rl ? batch.loss_tokens : 0;
  journal_.push_back(wire::StepCommitted{0, step, batch.digest, chain_, state_hash_,
                                         batch.loss_tokens, audited, 0, false});
  nlohmann::json line = {{"step", step},
                         {"trained_tokens", batch.loss_tokens},
                         {"audited_tokens", audited},
                         {"mismatched_tokens", 0u},
                         {"state_hash", state_hash_.ToString()}};
  metrics_ += line.dump() + "\n";
}

void SmallRun::Publish(std::uint32_t step) {
  weights_hash_ = HashText128(blob_);
  journal_.push_back(wire::VersionPublished{{0, step}, weights_hash_, blob_.size()});
  auto file = run_ / "weights" / ("0." + std::to_string(step) + ".safetensors");
  THRESHER_CHECK(WriteFileAtomic(file, blob_).ok(), file.string());
}

void SmallRun::Checkpoint(std::uint32_t step) {
  std::string folder = "checkpoints/step_00000" + std::to_string(step);
  auto writer = FolderWriter::Open(run_ / folder);
  THRESHER_CHECK(writer.ok() && writer->WriteFile("model.safetensors", blob_).ok(), folder);
  auto manifest = writer->Commit();
  THRESHER_CHECK(manifest.ok(), folder);
  journal_.push_back(wire::StepsDurable{0, step, folder, manifest->hash, chain_});
}

void SmallRun::EvaluateAfter(std::uint32_t step) {
  for (const EvalRound& round : plan_.evals()) {
    if (round.version.step != step) continue;
    journal_.push_back(wire::ItemsIssued{Stream::kEval, 0, round.first_item, round.items,
                                         round.samples, step, round.round, round.version});
    std::vector<TrajectoryId> ids;
    for (std::uint64_t i = 0; i < round.items; ++i) {
      for (std::uint32_t k = 0; k < round.samples; ++k) {
        ids.push_back({Stream::kEval, 0, round.first_item + i, k});
        Accept(ids.back(), round.version, k == 0 ? 1 : 0);
      }
    }
    journal_.push_back(wire::RoundEvaluated{
        round.round, round.version, wire::HashBatch(EntriesOf(ids)), round.items, round.samples});
  }
}

void SmallRun::Write() {
  auto created = model::CreateRun(run_, config_, "0123456789+-*/=,;: ");
  THRESHER_CHECK(created.ok(), created.status().ToString());
  std::filesystem::create_directories(run_ / "weights");
  journal_.push_back(
      wire::EpochStarted{BrokerEpoch(1), Incarnation(5), created->run_id, Hash128{}});
  for (std::uint32_t step = 0; step < plan_.total_steps(); ++step) {
    Train(step);
    if (plan_.IsPublished(step + 1)) Publish(step + 1);
    if (plan_.Step(step).checkpoint_after) Checkpoint(step + 1);
    EvaluateAfter(step + 1);
  }
  journal_.push_back(wire::RunFinished{plan_.total_steps(), weights_hash_});
  WriteFiles();
}

void SmallRun::WriteFiles() {
  std::vector<StoredRecord> stored;
  for (const Trajectory& t : trajectories_) {
    stored.push_back({t.id, t.ContentHash(), wire::EncodeTrajectory(t)});
  }
  THRESHER_CHECK(SaveJournal(run_, journal_).ok() && SaveStore(run_, stored).ok(), "records");
  std::ofstream(run_ / "metrics.jsonl") << metrics_;
  nlohmann::json summary = {{"finished", true}, {"faults", {{"broker_starts", 1}}}};
  std::ofstream(run_ / "summary.json") << summary.dump();
}

TEST(SmallRunTest, IsSound) {
  TemporaryFolder folder;
  SmallRun(folder.path() / "run").Write();
  auto report = AuditRun(folder.path() / "run");
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->problems, std::vector<std::string>{});
  EXPECT_TRUE(report->finished);
  EXPECT_EQ(report->committed_steps, 4u);
  EXPECT_EQ(report->stored_trajectories, 6u + 8u + 8u);
  const auto& train = report->streams[static_cast<int>(Stream::kTrain)];
  EXPECT_EQ(train.issued, 8u);
  EXPECT_EQ(train.trained, 4u);
  EXPECT_EQ(train.dropped, 4u);
  EXPECT_EQ(train.held, 0u);
  EXPECT_EQ(report->streams[static_cast<int>(Stream::kEval)].evaluated, 8u);
  EXPECT_EQ(report->audited_tokens, 16u);
}

}  // namespace thresher::launch
