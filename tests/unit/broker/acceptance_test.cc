#include "broker/acceptance.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

class AcceptanceTest : public ::testing::Test {
 protected:
  AcceptanceTest() {
    Plan plan(config_);
    EXPECT_TRUE(state_.Apply(Issued(plan.Step(0), V(0))).ok());
    EXPECT_TRUE(state_.Apply(Issued(plan.Step(2), V(2))).ok());
    EXPECT_TRUE(state_.Apply(Issued(plan.evals()[0])).ok());
  }
  Trajectory Good(Stream stream = Stream::kTrain) {
    std::uint32_t group = stream == Stream::kSupervised ? 1 : 2;
    PolicyVersion version = V(stream == Stream::kSupervised ? 0 : 2);
    return MakeTrajectory(config_, Id(stream, 0, 0), group, version, 1, ActorId(3),
                          identities_.RunHash());
  }
  Judgement Judge(const Trajectory& t, std::uint32_t uploader = 3) {
    return JudgeUpload(t, state_, config_, identities_, ActorId(uploader));
  }

  Config config_ = TinyConfig();
  RunState state_{Plan(config_)};
  TemporaryFolder folder_;
  Identities identities_ = OnlyTheRuns(folder_.path());

 private:
  static Identities OnlyTheRuns(const std::filesystem::path& folder) {
    Identities identities = std::move(Identities::Open(folder, true)).value();
    RunIdentity identity;
    identity.backend = "cpu";
    EXPECT_EQ(*identities.Admit(identity), "");
    return identities;
  }
};

TEST_F(AcceptanceTest, TakesWhatWasIssued) {
  for (Stream stream : {Stream::kTrain, Stream::kSupervised, Stream::kEval}) {
    Trajectory t = Good(stream);
    Judgement judgement = Judge(t);
    EXPECT_EQ(judgement.verdict, wire::UploadVerdict::kAccepted) << judgement.reason;
    EXPECT_EQ(judgement.record.content_hash, t.ContentHash());
    EXPECT_EQ(judgement.record.loss_tokens, 3u);
    EXPECT_EQ(judgement.record.reward, 1);
    EXPECT_EQ(judgement.record.actor, 3u);
    EXPECT_TRUE(state_.Apply(judgement.record).ok());
  }
}

TEST_F(AcceptanceTest, RefusesWhatDoesNotFitAndSaysWhy) {
  struct Case {
    const char* reason;
    std::function<void(Trajectory&)> damage;
  };
  const Case cases[] = {
      {"run identity", [](Trajectory& t) { t.run_identity = H("another"); }},
      {"not issued", [](Trajectory& t) { t.id.item = 40; }},
      {"not issued", [](Trajectory& t) { t.id.sample = 2; }},
      {"not issued", [](Trajectory& t) { t.id.stream = Stream::kUser; }},
      {"not issued", [](Trajectory& t) { t.id.island = 1; }},
      {"group of", [](Trajectory& t) { t.group_size = 3; }},
      {"task", [](Trajectory& t) { t.task = "chess"; }},
      {"pinned", [](Trajectory& t) { t.pinned = V(1); }},
      {"not generated", [](Trajectory& t) { t.versions[0].version = V(1); }},
      {"not generated", [](Trajectory& t) { t.versions[0].version = V(3); }},
      {"not generated",
       [](Trajectory& t) {
         t.kv_history.push_back({0, 1, V(1), true});
       }},
      {"not generated", [](Trajectory& t) { t.versions.clear(); }},
      {"temperature", [](Trajectory& t) { t.sampling.temperature = 0.5f; }},
      {"max_new_tokens", [](Trajectory& t) { t.sampling.max_new_tokens = 7; }},
      {"top_k 5, asked for 0", [](Trajectory& t) { t.sampling.top_k = 5; }},
      {"top_p", [](Trajectory& t) { t.sampling.top_p = 0.5f; }},
      {"min_p", [](Trajectory& t) { t.sampling.min_p = 0.5f; }},
      {"repetition_penalty", [](Trajectory& t) { t.sampling.repetition_penalty = 2; }},
      {"biases",
       [](Trajectory& t) {
         t.sampling.logit_bias = {{3, 1.0f}};
       }},
      {"3 kept-mass logprobs, expected 0",
       [](Trajectory& t) {
         t.kept_mass_logprobs = {0, 0, 0};
       }},
      {"finish reason", [](Trajectory& t) { t.finish = FinishReason::kReference; }},
      {"finish reason", [](Trajectory& t) { t.finish = FinishReason::kError; }},
      {"finite", [](Trajectory& t) { t.logprobs[1] = std::nanf(""); }},
  };
  for (const Case& c : cases) {
    Trajectory t = Good();
    c.damage(t);
    Judgement judgement = Judge(t);
    EXPECT_EQ(judgement.verdict, wire::UploadVerdict::kRefused) << c.reason;
    EXPECT_NE(judgement.reason.find(c.reason), std::string::npos) << judgement.reason;
  }
  EXPECT_EQ(Judge(Good(), 4).verdict, wire::UploadVerdict::kRefused) << "another actor's name";
}

TEST_F(AcceptanceTest, FiltersBelongToTrainingSamplesAndKeptMassesToThem) {
  config_.sampling.top_k = 20;
  config_.sampling.top_p = 0.9;
  EXPECT_EQ(Judge(Good(Stream::kEval)).verdict, wire::UploadVerdict::kAccepted);
  EXPECT_EQ(Judge(Good()).verdict, wire::UploadVerdict::kRefused);
  Trajectory t = Good();
  t.sampling.top_k = 20;
  t.sampling.top_p = 0.9f;
  EXPECT_NE(Judge(t).reason.find("0 kept-mass logprobs, expected 3"), std::string::npos);
  t.kept_mass_logprobs = {0, -1, 0};
  EXPECT_EQ(Judge(t).verdict, wire::UploadVerdict::kAccepted);
  t.kept_mass_logprobs[1] = std::nanf("");
  EXPECT_NE(Judge(t).reason.find("finite"), std::string::npos);
}

TEST_F(AcceptanceTest, TheFirstCopyWins) {
  Trajectory first = Good();
  ASSERT_TRUE(state_.Apply(Judge(first).record).ok());
  Trajectory again = first;
  again.actor = ActorId(4);
  again.timings.decode_ms = 99;
  EXPECT_EQ(Judge(again, 4).verdict, wire::UploadVerdict::kDuplicate);
  again.tokens[3] ^= 1;
  Judgement conflict = Judge(again, 4);
  EXPECT_EQ(conflict.verdict, wire::UploadVerdict::kConflict);
  EXPECT_EQ(conflict.first->actor, 3u);
}

TEST_F(AcceptanceTest, ADroppedSampleIsNotWantedAnyMore) {
  Trajectory late = Good();
  ASSERT_TRUE(state_.Apply(wire::SampleDropped{late.id, wire::DropReason::kDeadline, 2}).ok());
  EXPECT_EQ(Judge(late).verdict, wire::UploadVerdict::kRefused);
}

}  // namespace
}  // namespace thresher::broker
