#include "actor/rollout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace thresher::actor {
namespace {

using model::Tokenizer;

constexpr const char* kAlphabet = " *+,-/0123456789:;=";

class RolloutTest : public ::testing::Test {
 protected:
  static Config Make(std::vector<std::string> overrides = {}) {
    return ParseConfig("", "test", overrides);
  }
  std::unique_ptr<Rollout> NewRollout(const Config& config) const {
    auto rollout = Rollout::Make(config, *tokenizer_);
    EXPECT_TRUE(rollout.ok()) << rollout.status().ToString();
    return std::move(rollout).value();
  }
  static SampleSpec Spec(Stream stream, std::uint64_t item, std::uint32_t sample = 0) {
    SampleSpec spec;
    spec.id = {stream, 0, item, sample};
    spec.group_size = 4;
    spec.pinned = {0, 9};
    spec.temperature = 0.8f;
    spec.max_new_tokens = 40;
    return spec;
  }
  // The result of an engine whose policy wrote `text`.
  GenerationResult Written(const Rollout& rollout, const SampleSpec& spec, const std::string& text,
                           FinishReason finish) const {
    GenerationResult result;
    result.id = spec.id;
    result.tokens = rollout.Request(spec).prompt;
    result.prompt_tokens = result.tokens.size();
    for (std::int32_t id : tokenizer_->Encode(text)) result.tokens.push_back(id);
    if (finish == FinishReason::kStop) result.tokens.push_back(Tokenizer::kEos);
    const auto begin = static_cast<std::uint32_t>(result.prompt_tokens);
    const auto end = static_cast<std::uint32_t>(result.tokens.size());
    result.logprobs.assign(end - begin, -0.5f);
    result.versions = {{begin, end, spec.pinned}};
    result.kv_history = {{0, end - 1, spec.pinned, false}};
    result.finish = finish;
    return result;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::FromAlphabet(kAlphabet).value();
};

TEST_F(RolloutTest, TrainingSamplesAloneAreDrawnThroughFilters) {
  const auto rollout =
      NewRollout(Make({"sampling.top_k=20", "sampling.top_p=0.9", "sampling.min_p=0.05",
                       "sampling.repetition_penalty=1.25"}));
  const SampleSpec train = Spec(Stream::kTrain, 1);
  const SamplingParams got = rollout->Request(train).sampling;
  EXPECT_EQ(got.top_k, 20u);
  EXPECT_EQ(got.top_p, 0.9f);
  EXPECT_EQ(got.min_p, 0.05f);
  EXPECT_EQ(got.repetition_penalty, 1.25f);
  EXPECT_EQ(got.temperature, 0.8f);
  EXPECT_FALSE(rollout->Request(Spec(Stream::kEval, 1)).sampling.Filtered());
  GenerationResult result = Written(*rollout, train, "1", FinishReason::kStop);
  result.kept_mass_logprobs.assign(result.logprobs.size(), -0.25f);
  const Trajectory record = rollout->Finish(train, result);
  EXPECT_EQ(record.sampling, got);
  EXPECT_EQ(record.kept_mass_logprobs, result.kept_mass_logprobs);
  EXPECT_TRUE(record.Validate().ok());
}

TEST_F(RolloutTest, OfAnUnfinishedSequenceThereIsARecordThatCanBeContinued) {
  const auto rollout = NewRollout(Make());
  const SampleSpec spec = Spec(Stream::kTrain, 1);
  const GenerationResult so_far = Written(*rollout, spec, "1+2", FinishReason::kCancelled);
  const Trajectory record = rollout->Prefix(spec, so_far);
  ASSERT_TRUE(record.Validate().ok()) << record.Validate().ToString();
  EXPECT_EQ(record.finish, FinishReason::kCancelled);
  EXPECT_EQ(record.text, "");
  EXPECT_EQ(record.outcome, Outcome());
  const auto prefix = Rollout::Continue(spec, rollout->Request(spec), record);
  ASSERT_TRUE(prefix.ok()) << prefix.status().ToString();
  EXPECT_EQ(prefix->tokens, tokenizer_->Encode("1+2"));
  EXPECT_EQ(prefix->logprobs, so_far.logprobs);
  EXPECT_EQ(prefix->versions, so_far.versions);
  EXPECT_EQ(prefix->kv_history, so_far.kv_history);
}

TEST_F(RolloutTest, WhatIsNotTheBeginningOfTheSampleIsNotContinued) {
  const auto rollout = NewRollout(Make());
  const SampleSpec spec = Spec(Stream::kTrain, 1);
  const Trajectory good =
      rollout->Prefix(spec, Written(*rollout, spec, "1+2", FinishReason::kCancelled));
  auto refused = [&](auto&& change) {
    Trajectory record = good;
    change(record);
    return Rollout::Continue(spec, rollout->Request(spec), record).status().code() ==
           StatusCode::kFailedPrecondition;
  };
  EXPECT_FALSE(refused([](Trajectory&) {}));
  EXPECT_TRUE(refused([](Trajectory& t) { ++t.id.sample; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.finish = FinishReason::kLength; }));
  EXPECT_TRUE(refused([](Trajectory& t) { ++t.pinned.step; }));
  EXPECT_TRUE(refused([](Trajectory& t) { ++t.versions[0].version.step; }));
  EXPECT_TRUE(refused([](Trajectory& t) { ++t.kv_history[0].version.step; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.sampling.top_k = 3; }));
  EXPECT_TRUE(refused([](Trajectory& t) { t.tokens[1] ^= 1; }));
  EXPECT_TRUE(refused([](Trajectory& t) {
    t.tokens.resize(t.segments[0].end);
    t.segments.pop_back();
  }));
}

TEST_F(RolloutTest, RequestsAreAFunctionOfTheIdentity) {
  const auto a = NewRollout(Make()), b = NewRollout(Make());
  for (std::uint64_t item = 0; item < 20; ++item) {
    const SampleSpec spec = Spec(Stream::kTrain, item, 3);
    const GenerationRequest request = a->Request(spec);
    EXPECT_EQ(request.prompt, b->Request(spec).prompt);
    EXPECT_EQ(request.prompt, a->Request(Spec(Stream::kTrain, item, 0)).prompt);  // of the group
    EXPECT_EQ(request.id, spec.id);
    EXPECT_EQ(request.run_seed, Make().run.seed);
    EXPECT_EQ(request.stop_tokens, (std::vector<std::int32_t>{Tokenizer::kEos}));
    EXPECT_EQ(request.sampling.temperature, 0.8f);
    EXPECT_EQ(request.sampling.max_new_tokens, 40u);
  }
  EXPECT_NE(a->Request(Spec(Stream::kTrain, 1)).prompt, a->Request(Spec(Stream::kTrain, 2)).prompt);
  const auto other_seed = NewRollout(Make({"run.seed=99"}));
  EXPECT_NE(a->Request(Spec(Stream::kTrain, 1)).prompt,
            other_seed->Request(Spec(Stream::kTrain, 1)).prompt);
}

TEST_F(RolloutTest, ThePromptIsBosAndTheTasksText) {
  const auto rollout = NewRollout(Make());
  const auto item = rollout->environment().Generate(Make().run.seed, Stream::kTrain, 5);
  const auto prompt = rollout->Request(Spec(Stream::kTrain, 5)).prompt;
  ASSERT_FALSE(prompt.empty());
  EXPECT_EQ(prompt[0], Tokenizer::kBos);
  EXPECT_EQ(tokenizer_->Decode(std::span(prompt).subspan(1), true), item.prompt);
}

TEST_F(RolloutTest, AFinishedRecordIsCompleteAndPure) {
  const auto rollout = NewRollout(Make());
  const SampleSpec spec = Spec(Stream::kTrain, 5, 2);
  const auto item = rollout->environment().Generate(Make().run.seed, Stream::kTrain, 5);
  RandomSequence random(1, {}, RandomPurpose::kBootstrap);
  const std::string solution = rollout->environment().Reference(item, random);
  const GenerationResult result = Written(*rollout, spec, solution, FinishReason::kStop);
  const Trajectory record = rollout->Finish(spec, result);
  EXPECT_TRUE(record.Validate().ok()) << record.Validate().ToString();
  EXPECT_EQ(record.id, spec.id);
  EXPECT_EQ(record.group_size, 4u);
  EXPECT_EQ(record.pinned, spec.pinned);
  EXPECT_EQ(record.task, rollout->environment().name());
  EXPECT_EQ(record.instance_hash, item.canonical_hash);
  EXPECT_EQ(record.prompt_hash, HashTokens(record.tokens, result.prompt_tokens));
  EXPECT_NE(record.prompt_hash, HashTokens(record.tokens, result.prompt_tokens + 1));
  const auto prompt = static_cast<std::uint32_t>(result.prompt_tokens);
  const auto end = static_cast<std::uint32_t>(result.tokens.size());
  EXPECT_EQ(record.segments, (std::vector<Segment>{{0, prompt, Role::kPrompt, false},
                                                   {prompt, end, Role::kPolicy, true}}));
  EXPECT_EQ(record.text, solution);  // without <eos>, which is a token of the policy all the same
  EXPECT_EQ(record.tokens.back(), Tokenizer::kEos);
  EXPECT_EQ(record.outcome.kind, OutcomeKind::kScored);
  EXPECT_EQ(record.outcome.score, 1.0);
  EXPECT_EQ(record.outcome.reward, 1.0);
  EXPECT_EQ(record.sampling.temperature, 0.8f);
  EXPECT_EQ(record.sampling.max_new_tokens, 40u);
  EXPECT_EQ(NewRollout(Make())->Finish(spec, result).ContentHash(), record.ContentHash());
}

TEST_F(RolloutTest, ACutAnswerIsGradedWithAllItsTokens) {
  const auto rollout = NewRollout(Make());
  const SampleSpec spec = Spec(Stream::kTrain, 5);
  const Trajectory record =
      rollout->Finish(spec, Written(*rollout, spec, "1+2", FinishReason::kLength));
  EXPECT_EQ(record.text, "1+2");
  EXPECT_EQ(record.finish, FinishReason::kLength);
  EXPECT_NE(record.outcome.reward, 1.0);
}

TEST_F(RolloutTest, SpecialTokensInAnAnswerAreSeenByTheGrader) {
  // A correct answer with <bos> or <eos> inside is not that answer.
  const auto rollout = NewRollout(Make());
  const SampleSpec spec = Spec(Stream::kTrain, 5);
  const auto item = rollout->environment().Generate(Make().run.seed, Stream::kTrain, 5);
  RandomSequence random(1, {}, RandomPurpose::kBootstrap);
  GenerationResult result =
      Written(*rollout, spec, rollout->environment().Reference(item, random), FinishReason::kStop);
  result.tokens[result.prompt_tokens + 1] = Tokenizer::kBos;
  EXPECT_NE(rollout->Finish(spec, result).outcome.reward, 1.0);
}

TEST_F(RolloutTest, WhatCannotBeParsedHasTheConfiguredReward) {
  const auto rollout = NewRollout(Make({"task.reward_unparsable=-0.25"}));
  const SampleSpec spec = Spec(Stream::kTrain, 5);
  for (const char* text : {"", "=;=", "1+", ":::::"}) {
    const Trajectory record =
        rollout->Finish(spec, Written(*rollout, spec, text, FinishReason::kStop));
    EXPECT_EQ(record.outcome.kind, OutcomeKind::kUnparsable) << text;
    EXPECT_EQ(record.outcome.score, 0.0);
    EXPECT_EQ(record.outcome.reward, -0.25) << text;
    EXPECT_FALSE(record.outcome.reason.empty());
  }
}

TEST_F(RolloutTest, ReferencesArePureAndWhole) {
  const auto a = NewRollout(Make()), b = NewRollout(Make());
  for (std::uint64_t item = 0; item < 50; ++item) {
    const SampleSpec spec = Spec(Stream::kSupervised, item);
    const Trajectory record = *a->Reference(spec);
    EXPECT_EQ(record.ContentHash(), b->Reference(spec)->ContentHash());
    EXPECT_TRUE(record.Validate().ok()) << record.Validate().ToString();
    EXPECT_EQ(record.finish, FinishReason::kReference);
    EXPECT_TRUE(record.logprobs.empty());
    EXPECT_EQ(record.tokens.back(), Tokenizer::kEos);
    ASSERT_EQ(record.segments.size(), 2u);
    EXPECT_TRUE(record.segments[1].in_loss);
    EXPECT_FALSE(record.segments[0].in_loss);
    const std::size_t prompt = record.segments[0].end;
    EXPECT_EQ(
        std::vector<std::int32_t>(record.tokens.begin(),
                                  record.tokens.begin() + static_cast<std::ptrdiff_t>(prompt)),
        a->Request(spec).prompt);
    EXPECT_EQ(record.prompt_hash, HashTokens(record.tokens, prompt));
    const std::span<const std::int32_t> trace = std::span(record.tokens).subspan(prompt);
    EXPECT_EQ(tokenizer_->Decode(trace.first(trace.size() - 1), true), record.text);
  }
}

TEST_F(RolloutTest, ReferencesComeInTheConfiguredShares) {
  constexpr int kTraces = 2000;
  struct Case {
    double off_target, perturbed;
  };
  for (const Case& c : {Case{0, 0}, {0.3, 0}, {0, 0.2}, {0.3, 0.2}, {1, 0}}) {
    const auto rollout = NewRollout(Make({"supervised.off_target=" + std::to_string(c.off_target),
                                          "supervised.perturbed=" + std::to_string(c.perturbed)}));
    int correct = 0, legal_misses = 0;
    for (std::uint64_t item = 0; item < kTraces; ++item) {
      const Outcome outcome = rollout->Reference(Spec(Stream::kSupervised, item))->outcome;
      double legal = 0;
      for (const SubScore& sub : outcome.subscores) {
        if (sub.name == "legal") legal = sub.value;
      }
      correct += outcome.reward == 1.0;
      legal_misses += outcome.reward != 1.0 && legal == 1.0;
    }
    const double share = 1 - c.off_target - c.perturbed;
    // Five standard deviations.
    EXPECT_NEAR(correct, kTraces * share, 5 * std::sqrt(kTraces * share * (1 - share)));
    if (c.perturbed > 0) continue;  // a perturbed trace may be a legal game, too
    EXPECT_EQ(legal_misses, kTraces - correct);
  }
}

TEST_F(RolloutTest, ATokenizerWithoutTheTasksCharactersIsRefused) {
  const auto poor = Tokenizer::FromAlphabet("0123456789+-").value();
  auto rollout = Rollout::Make(Make(), *poor);
  ASSERT_FALSE(rollout.ok());
  EXPECT_EQ(rollout.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(rollout.status().message(), ::testing::HasSubstr("tokenizer has no"));
}

// Gives one example; item 9 is not what it was.
class OneExample final : public examples::SupervisedSource {
 public:
  Result<examples::Example> At(std::uint64_t item) const override {
    if (item == 9) return DataLoss("a.jsonl: line 3: changed");
    examples::Example example;
    example.tokens = {1, 7, 8, 2};
    example.segments = {{0, 2, Role::kPrompt, false}, {2, 4, Role::kPolicy, true}};
    return example;
  }
  std::uint64_t held_out() const override { return 0; }
  Result<examples::Example> HeldOut(std::uint64_t) const override { return OutOfRange("none"); }
  const examples::SourceCounts& counts() const override { return counts_; }
  const std::vector<DataHash>& hashes() const override { return hashes_; }

 private:
  examples::SourceCounts counts_;
  std::vector<DataHash> hashes_;
};

TEST_F(RolloutTest, ASupervisedSampleIsAnExampleWhereThereAreSome) {
  const auto rollout = Rollout::Make(Make(), *tokenizer_, std::make_unique<OneExample>()).value();
  const auto record = rollout->Reference(Spec(Stream::kSupervised, 4));
  ASSERT_TRUE(record.ok());
  EXPECT_TRUE(record->Validate().ok());
  EXPECT_EQ(record->id.item, 4u);
  EXPECT_EQ(record->task, "countdown");
  EXPECT_EQ(record->finish, FinishReason::kReference);
  EXPECT_EQ(record->tokens, (std::vector<std::int32_t>{1, 7, 8, 2}));
  EXPECT_TRUE(record->logprobs.empty());
  EXPECT_EQ(record->prompt_hash, HashTokens(record->tokens, 2));
  EXPECT_EQ(rollout->Reference(Spec(Stream::kSupervised, 9)).status().code(),
            StatusCode::kDataLoss);
}

}  // namespace
}  // namespace thresher::actor
