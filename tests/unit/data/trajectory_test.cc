#include "common/data/trajectory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/run_identity.h"

namespace thresher {
namespace {

// Prompt of 3 tokens, 4 of the policy, 1 of a tool, 2 of the policy; a swap after token 5.
Trajectory Sample() {
  Trajectory t;
  t.id = {Stream::kTrain, 1, 12, 3};
  t.group_size = 8;
  t.pinned = {0, 4};
  t.prompt_hash = {1, 2};
  t.instance_hash = {3, 4};
  t.task = "countdown";
  for (int i = 0; i < 10; ++i) t.tokens.push_back(100 + i);
  t.segments = {{0, 3, Role::kPrompt, false},
                {3, 7, Role::kPolicy, true},
                {7, 8, Role::kTool, false},
                {8, 10, Role::kPolicy, true}};
  t.logprobs = {-0.1f, -0.2f, -0.3f, -0.4f, -0.5f, -0.6f};
  t.kept_mass_logprobs = {0, 0, 0, 0, 0, -0.01f};
  t.versions = {{3, 5, {0, 4}}, {5, 10, {0, 5}}};
  t.kv_history = {{0, 5, {0, 4}, false}, {0, 5, {0, 5}, true}, {5, 9, {0, 5}, false}};
  t.sampling.max_new_tokens = 32;
  t.outcome = {OutcomeKind::kScored, 1.0,  1.0, "solved", {{"format", 0.5}},
               {{4, "step", 0.25}},  false};
  t.text = "1+2=3;";
  t.parent = {Stream::kTrain, 0, 1, 0};
  return t;
}

TEST(Trajectory, AWellFormedOneIsValid) {
  Status status = Sample().Validate();
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(Trajectory().Validate().ok());
  EXPECT_EQ(Sample().PolicyTokenCount(), 6u);
}

TEST(Trajectory, EveryBrokenRuleNamesTheIdAndTheField) {
  auto broken = [](const char* field, const std::function<void(Trajectory&)>& change) {
    Trajectory t = Sample();
    change(t);
    Status status = t.Validate();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << field;
    EXPECT_NE(status.message().find(std::string("train/1/12/3: ") + field), std::string::npos)
        << status.ToString();
  };
  broken("segments", [](Trajectory& t) { t.segments[1].begin = 4; });
  broken("segments", [](Trajectory& t) { t.segments.pop_back(); });
  broken("segments", [](Trajectory& t) { t.segments.back().end = 11; });
  broken("segments", [](Trajectory& t) { t.segments.insert(t.segments.begin(), Segment{}); });
  broken("segments", [](Trajectory& t) { t.tokens.push_back(1); });
  broken("logprobs", [](Trajectory& t) { t.logprobs.pop_back(); });
  broken("logprobs", [](Trajectory& t) { t.finish = FinishReason::kReference; });
  broken("logprobs", [](Trajectory& t) { t.segments[0].role = Role::kPolicy; });
  broken("kept_mass_logprobs", [](Trajectory& t) { t.kept_mass_logprobs.pop_back(); });
  broken("logit_bias", [](Trajectory& t) { t.sampling.logit_bias = {{3, 1.0f}, {3, 2.0f}}; });
  broken("logit_bias", [](Trajectory& t) { t.sampling.logit_bias = {{-1, 1.0f}}; });
  broken("logit_bias", [](Trajectory& t) { t.sampling.logit_bias = {{1, INFINITY}}; });
  broken("allowed_tokens", [](Trajectory& t) { t.sampling.allowed_tokens = {4, 2}; });
  broken("allowed_tokens", [](Trajectory& t) { t.sampling.allowed_tokens = {-1}; });
  broken("versions", [](Trajectory& t) { t.versions[1].end = 11; });
  broken("versions", [](Trajectory& t) { t.versions[1].begin = 4; });
  broken("versions", [](Trajectory& t) { t.versions[0].end = 3; });
  broken("kv_history", [](Trajectory& t) { t.kv_history[1].end = 11; });
  broken("kv_history", [](Trajectory& t) { t.kv_history[1].end = 0; });
  broken("position_rewards", [](Trajectory& t) { t.outcome.position_rewards[0].position = 10; });
  broken("parent", [](Trajectory& t) {
    t.has_parent = true;
    t.parent.sample = TrajectoryId::kMaxSample + 1;
  });
  Trajectory t = Sample();
  t.id.item = TrajectoryId::kMaxItem + 1;
  EXPECT_NE(t.Validate().message().find("id:"), std::string::npos) << t.Validate().ToString();
}

TEST(Trajectory, AReferenceTraceHasNoLogprobs) {
  Trajectory t = Sample();
  t.finish = FinishReason::kReference;
  t.logprobs.clear();
  t.kept_mass_logprobs.clear();
  EXPECT_TRUE(t.Validate().ok()) << t.Validate().ToString();
}

TEST(Trajectory, TheOldestVersionCountsTheKvHistory) {
  Trajectory t = Sample();
  EXPECT_EQ(t.OldestVersion(), (PolicyVersion{0, 4}));
  t.kv_history[0].version = {0, 2};
  EXPECT_EQ(t.OldestVersion(), (PolicyVersion{0, 2}));
  t.kv_history.clear();
  t.versions.clear();
  EXPECT_EQ(t.OldestVersion(), t.pinned);
}

std::vector<std::function<void(Trajectory&)>> ContentChanges() {
  return {
      [](Trajectory& t) { t.id.stream = Stream::kEval; },
      [](Trajectory& t) { t.id.island ^= 1; },
      [](Trajectory& t) { t.id.item ^= 1; },
      [](Trajectory& t) { t.id.sample ^= 1; },
      [](Trajectory& t) { t.group_size ^= 1; },
      [](Trajectory& t) { t.pinned.lineage ^= 1; },
      [](Trajectory& t) { t.pinned.step ^= 1; },
      [](Trajectory& t) { t.prompt_hash.high ^= 1; },
      [](Trajectory& t) { t.prompt_hash.low ^= 1; },
      [](Trajectory& t) { t.instance_hash.low ^= 1; },
      [](Trajectory& t) { t.task += "x"; },
      [](Trajectory& t) { t.tokens[9] ^= 1; },
      [](Trajectory& t) { t.tokens.pop_back(); },
      [](Trajectory& t) { t.segments[0].end ^= 1; },
      [](Trajectory& t) { t.segments[1].begin ^= 1; },
      [](Trajectory& t) { t.segments[2].role = Role::kEnvironment; },
      [](Trajectory& t) { t.segments[2].in_loss = true; },
      [](Trajectory& t) { t.logprobs[0] = std::nextafter(t.logprobs[0], 0.0f); },
      [](Trajectory& t) { t.kept_mass_logprobs[0] = -0.0f; },
      [](Trajectory& t) { t.versions[0].begin ^= 1; },
      [](Trajectory& t) { t.versions[0].end ^= 1; },
      [](Trajectory& t) { t.versions[0].version.lineage ^= 1; },
      [](Trajectory& t) { t.versions[0].version.step ^= 1; },
      [](Trajectory& t) { t.kv_history[1].begin ^= 1; },
      [](Trajectory& t) { t.kv_history[1].end ^= 1; },
      [](Trajectory& t) { t.kv_history[1].version.step ^= 1; },
      [](Trajectory& t) { t.kv_history[1].version.lineage ^= 1; },
      [](Trajectory& t) { t.kv_history[1].recomputed = false; },
      [](Trajectory& t) { t.sampling.temperature = 0.9f; },
      [](Trajectory& t) { t.sampling.top_k = 5; },
      [](Trajectory& t) { t.sampling.top_p = 0.9f; },
      [](Trajectory& t) { t.sampling.min_p = 0.1f; },
      [](Trajectory& t) { t.sampling.repetition_penalty = 1.1f; },
      [](Trajectory& t) { t.sampling.max_new_tokens ^= 1; },
      [](Trajectory& t) {
        t.sampling.logit_bias = {{3, 1.0f}};
      },
      [](Trajectory& t) {
        t.sampling.logit_bias = {{4, 1.0f}};
      },
      [](Trajectory& t) {
        t.sampling.logit_bias = {{3, 2.0f}};
      },
      [](Trajectory& t) { t.sampling.allowed_tokens = {3}; },
      [](Trajectory& t) {
        t.sampling.allowed_tokens = {3, 4};
      },
      [](Trajectory& t) { t.finish = FinishReason::kLength; },
      [](Trajectory& t) { t.outcome.kind = OutcomeKind::kRejected; },
      [](Trajectory& t) { t.outcome.score = 0.5; },
      [](Trajectory& t) { t.outcome.reward = 0.5; },
      [](Trajectory& t) { t.outcome.reason += "x"; },
      [](Trajectory& t) { t.outcome.subscores[0].name += "x"; },
      [](Trajectory& t) { t.outcome.subscores[0].value = 1; },
      [](Trajectory& t) { t.outcome.subscores.clear(); },
      [](Trajectory& t) { t.outcome.position_rewards[0].position ^= 1; },
      [](Trajectory& t) { t.outcome.position_rewards[0].name += "x"; },
      [](Trajectory& t) { t.outcome.position_rewards[0].value = 1; },
      [](Trajectory& t) { t.outcome.nondeterministic = true; },
      [](Trajectory& t) { t.text += "x"; },
      [](Trajectory& t) { t.has_parent = true; },
      [](Trajectory& t) { t.parent.item ^= 1; },
      [](Trajectory& t) { t.parent_position ^= 1; },
      [](Trajectory& t) { t.episode ^= 1; },
      [](Trajectory& t) { t.episode_index ^= 1; },
  };
}

TEST(ContentHash, DependsOnEveryFieldOfTheContent) {
  std::set<Hash128> seen = {Sample().ContentHash()};
  std::size_t number = 0;
  for (const auto& change : ContentChanges()) {
    Trajectory t = Sample();
    change(t);
    EXPECT_TRUE(seen.insert(t.ContentHash()).second) << "change " << number;
    ++number;
  }
}

TEST(ContentHash, DoesNotDependOnWhoAndWhen) {
  Trajectory t = Sample();
  t.timings = {1, 2, 3, 4};
  t.actor = ActorId(7);
  t.incarnation = Incarnation(8);
  t.run_identity = {9, 10};
  EXPECT_EQ(t.ContentHash(), Sample().ContentHash());
}

TEST(ContentHash, TextCannotMoveBetweenFields) {
  Trajectory a = Sample(), b = Sample();
  a.outcome.subscores = {{"ab", 0}, {"c", 0}};
  b.outcome.subscores = {{"a", 0}, {"bc", 0}};
  EXPECT_NE(a.ContentHash(), b.ContentHash());
}

// The layout that trajectory_hash.cc documents, written out for a trajectory without contents.
TEST(ContentHash, LayoutIsAsDocumented) {
  std::string bytes = "thresher.trajectory.1";
  auto zeros = [&](int count) { bytes.append(8 * count, '\0'); };
  auto number = [&](std::uint64_t value) { AppendLittle<std::uint64_t>(bytes, value); };
  zeros(4 + 1 + 2 + 2 + 2);          // id, group_size, pinned, prompt_hash, instance_hash
  zeros(1 + 1);                      // task, tokens
  zeros(1 + 1 + 1 + 1 + 1);          // segments, logprobs, kept_mass_logprobs, versions, kv_history
  number(0x3f800000);                // temperature 1
  number(0);                         // top_k
  number(0x3f800000);                // top_p 1
  number(0);                         // min_p
  number(0x3f800000);                // repetition_penalty 1
  number(0);                         // max_new_tokens
  zeros(1);                          // finish
  zeros(1 + 1 + 1 + 1 + 1 + 1 + 1);  // outcome
  number(2);                         // text
  bytes += "hi";
  zeros(1 + 4 + 1 + 1 + 1);  // has_parent, parent, parent_position, episode, episode_index
  Trajectory trajectory;
  trajectory.text = "hi";
  EXPECT_EQ(trajectory.ContentHash(), HashText128(bytes));
}

// Journals and stores hold these hashes: they may never change.
TEST(ContentHash, IsFixed) {
  EXPECT_EQ(Sample().ContentHash().ToString(), "8b9b7c6030f63d76a3b0cdc02d6def9c");
}

TEST(HashTokens, IsOfTheLittleEndianBytesOfThePrefix) {
  std::vector<std::int32_t> tokens = {1, -2, 300, 4};
  std::string bytes;
  for (int i = 0; i < 3; ++i)
    AppendLittle<std::uint32_t>(bytes, static_cast<std::uint32_t>(tokens[i]));
  EXPECT_EQ(HashTokens(tokens, 3), HashText128(bytes));
  EXPECT_NE(HashTokens(tokens, 3), HashTokens(tokens, 4));
  EXPECT_EQ(HashTokens({}, 0), HashText128(""));
}

RunIdentity Identity() {
  return {"cpu", "x86-64", "cpu-fp32-v1", "f32",  "f32",  "f32",  256, 64,
          8,     "abc",    {1, 2},        {3, 4}, {5, 6}, {7, 8}, 42};
}

TEST(RunIdentity, EveryFieldChangesTheHashAndIsNamedInTheDifference) {
  const std::pair<const char*, std::function<void(RunIdentity&)>> changes[] = {
      {"backend", [](RunIdentity& i) { i.backend = "cuda"; }},
      {"architecture", [](RunIdentity& i) { i.architecture = "sm_90"; }},
      {"kernel_set", [](RunIdentity& i) { i.kernel_set = "cuda-bf16-v1"; }},
      {"weight_type", [](RunIdentity& i) { i.weight_type = "bf16"; }},
      {"compute_type", [](RunIdentity& i) { i.compute_type = "bf16"; }},
      {"kv_type", [](RunIdentity& i) { i.kv_type = "bf16"; }},
      {"gemm_cut", [](RunIdentity& i) { i.gemm_cut = 512; }},
      {"attention_split", [](RunIdentity& i) { i.attention_split = 128; }},
      {"grad_leaves", [](RunIdentity& i) { i.grad_leaves = 4; }},
      {"build", [](RunIdentity& i) { i.build = "def"; }},
      {"model_shape", [](RunIdentity& i) { i.model_shape.low = 9; }},
      {"tokenizer", [](RunIdentity& i) { i.tokenizer.high = 9; }},
      {"task", [](RunIdentity& i) { i.task.low = 9; }},
      {"result_keys", [](RunIdentity& i) { i.result_keys.low = 9; }},
      {"run_seed", [](RunIdentity& i) { i.run_seed = 43; }},
  };
  std::set<Hash128> hashes = {Identity().Hash()};
  std::set<Hash128> numerics = {Identity().NumericsHash()};
  for (const auto& [name, change] : changes) {
    RunIdentity other = Identity();
    change(other);
    EXPECT_TRUE(hashes.insert(other.Hash()).second) << name;
    numerics.insert(other.NumericsHash());
    std::string difference = Identity().Difference(other);
    EXPECT_EQ(difference.find(std::string(name) + ": ours '"), 0u) << difference;
    EXPECT_EQ(difference.find(';'), std::string::npos) << difference;
  }
  EXPECT_EQ(numerics.size(), 10u);  // the first nine fields and none of the others
}

TEST(RunIdentity, DifferenceReadsAsASentence) {
  RunIdentity other = Identity();
  EXPECT_EQ(Identity().Difference(other), "");
  other.kernel_set = "cuda-bf16-v1";
  other.run_seed = 7;
  EXPECT_EQ(
      Identity().Difference(other),
      "kernel_set: ours 'cpu-fp32-v1', theirs 'cuda-bf16-v1'; run_seed: ours '42', theirs '7'");
}

TEST(OutcomeKindName, IsDistinctForEveryKind) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(OutcomeKind::kRejected); ++i) {
    names.insert(OutcomeKindName(static_cast<OutcomeKind>(i)));
  }
  EXPECT_EQ(names.size(), 5u);
}

}  // namespace
}  // namespace thresher
