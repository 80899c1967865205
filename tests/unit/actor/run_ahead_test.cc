// The engine ahead of its tokens: whatever the runner's depth and the moment at which it computes,
// every sequence has the results of an engine that waits for each token, and records the same. As a
// property over random mixes with cancellations and new weights at random moments, then what a
// failing runner does.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "tests/unit/actor/ahead_runner.h"
#include "tests/unit/actor/engine_testing.h"
#include "tests/unit/actor/random_mix.h"

namespace thresher::actor {
namespace {

constexpr int kShards = 4;
constexpr int kRunsPerMix = 4;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMixesPerShard = 4;
#else
constexpr int kMixesPerShard = 30;
#endif
constexpr std::uint64_t kFirstMix = 100000;  // others than row_purity_test.cc's
constexpr PolicyVersion kVersions[] = {{0, 1}, {0, 2}};

// A mix whose sequences end in every way, and two versions of its weights.
struct Case {
  explicit Case(std::uint64_t seed) : mix(seed) {
    Chance chance(seed + 1);
    weights[0] = mix.weights;
    weights[1] =
        model::PackedModel::Make(mix.shape, model::LivelyWeights(mix.shape, seed + 7), 0, false);
    for (GenerationRequest& request : mix.requests) {
      if (chance.OneIn(6)) request.prompt.resize(1);
      if (chance.OneIn(8)) request.sampling.max_new_tokens = 1;
      if (!chance.OneIn(4)) continue;
      request.decode = [](std::int32_t token) {
        return std::string(1, static_cast<char>('a' + token % 4));
      };
      request.stop_strings = {"abc", chance.OneIn(2) ? "dd" : "cab"};
    }
  }

  Mix mix;
  std::shared_ptr<const model::PackedModel> weights[2];
};

// How a case is run.
struct Way {
  EngineOptions options;
  AheadOptions ahead;
  int submit_per_step = 64;
  std::uint64_t cancel_one_in = 0;  // steps; 0: never
  int swap_after = -1;              // steps, then everything is cancelled and begins anew
};

Way RandomWay(Chance& chance, const Mix& mix) {
  Way way;
  way.options = RandomOptions(chance, mix);
  way.ahead.depth = chance.OneIn(3) ? 3 : 2;
  way.ahead.at_once = chance.OneIn(2);
  if (chance.OneIn(4)) {  // a runner that can do more
    way.ahead.runs_ahead = [](const model::RowSampling& row) {
      return row.repetition_penalty == 1.0f;
    };
  } else if (chance.OneIn(8)) {
    way.ahead.runs_ahead = [](const model::RowSampling&) { return false; };
  }
  way.submit_per_step = chance.OneIn(2) ? 64 : chance.Between(1, 3);
  if (chance.OneIn(3)) way.cancel_one_in = static_cast<std::uint64_t>(chance.Between(2, 12));
  if (chance.OneIn(3)) way.swap_after = chance.Between(1, 40);
  return way;
}

// What a run gave; `error`: what is wrong with it, empty if nothing is.
struct Outcome {
  std::string error;
  Results results, cancelled;
  EngineCounters counters;
  AheadLog log;
};

class CaseRun {
 public:
  CaseRun(const Case& what, const Way& way, Chance& chance)
      : case_(what),
        way_(way),
        chance_(chance),
        engine_(what.mix.shape, way.options,
                std::make_unique<AheadRunner>(what.mix.shape, way.options.kv_pages,
                                              way.options.max_batch, way.ahead, outcome_.log)) {}

  Outcome Finish() {
    Check(engine_.SetWeights(case_.weights[0], kVersions[0]));
    for (const GenerationRequest& request : case_.mix.requests) to_submit_.push_back(&request);
    for (int step = 0; outcome_.error.empty() && (!to_submit_.empty() || engine_.load() > 0);
         ++step) {
      for (int i = 0; i < way_.submit_per_step && !to_submit_.empty(); ++i) {
        Check(engine_.Submit(*to_submit_.front()));
        to_submit_.pop_front();
      }
      if (way_.cancel_one_in > 0 && chance_.OneIn(way_.cancel_one_in)) CancelOne();
      if (step == way_.swap_after) Swap();
      Step();
      if (step > 20000) outcome_.error = "no end";
    }
    CheckCounters();
    return std::move(outcome_);
  }

 private:
  void Check(const Status& status) {
    if (!status.ok() && outcome_.error.empty()) outcome_.error = status.ToString();
  }

  void Step() {
    auto finished = engine_.Step();
    Check(finished.status());
    if (!finished.ok()) return;
    for (const FreshToken& fresh : engine_.fresh_tokens()) {
      ++fresh_tokens_;
      streamed_[fresh.id].push_back(fresh.token);
    }
    for (GenerationResult& result : *finished) {
      const TrajectoryId id = result.id;
      const std::vector<std::int32_t> fresh(
          result.tokens.begin() + static_cast<std::ptrdiff_t>(result.prompt_tokens),
          result.tokens.end());
      if (streamed_[id] != fresh) outcome_.error = id.ToString() + ": other tokens were streamed";
      if (!outcome_.results.emplace(id, std::move(result)).second) {
        outcome_.error = id.ToString() + ": finished twice";
      }
    }
  }

  void CancelOne() {
    const GenerationRequest& request = chance_.Of(case_.mix.requests);
    auto result = engine_.Cancel(request.id);
    if (!result) return;
    if (result->finish != FinishReason::kCancelled) outcome_.error = "cancelled, but says else";
    outcome_.cancelled.emplace(request.id, std::move(*result));
  }

  // Rows of what has gone are on their way when the weights change.
  void Swap() {
    std::set<TrajectoryId> left;
    for (const TrajectoryId& id : engine_.CancelAll()) left.insert(id);
    Check(engine_.SetWeights(case_.weights[1], kVersions[1]));
    if (engine_.load() != 0 || engine_.counters().pages_used != 0) outcome_.error = "not all went";
    for (const GenerationRequest& request : case_.mix.requests) {
      if (left.contains(request.id)) to_submit_.push_back(&request);
      if (left.contains(request.id)) streamed_.erase(request.id);
    }
  }

  void CheckCounters() {
    if (!outcome_.error.empty()) return;
    const EngineCounters counters = engine_.counters();
    outcome_.counters = counters;
    const auto pages = static_cast<std::uint32_t>(way_.options.kv_pages);
    if (counters.pages_used != 0 || counters.pages_shared != 0 || counters.running != 0 ||
        counters.pages_free + counters.pages_retained != pages) {
      outcome_.error = "pages are lost";
    } else if (counters.decode_tokens != fresh_tokens_) {
      outcome_.error = "tokens are counted that nobody saw";
    } else if (counters.finished != outcome_.results.size()) {
      outcome_.error = "finished is not what has finished";
    } else if (outcome_.results.size() + outcome_.cancelled.size() != case_.mix.requests.size()) {
      outcome_.error = "a request is lost";
    }
  }

  const Case& case_;
  const Way& way_;
  Chance& chance_;
  Outcome outcome_;
  Engine engine_;
  std::deque<const GenerationRequest*> to_submit_;
  std::map<TrajectoryId, std::vector<std::int32_t>> streamed_;
  std::uint64_t fresh_tokens_ = 0;
};

// Every request alone, on an engine that waits for each token, under either version.
std::vector<Results> RunAlone(const Case& what) {
  std::vector<Results> alone(2);
  for (std::size_t version = 0; version < 2; ++version) {
    Engine engine(what.mix.shape, {1, 4096, 0, false});
    EXPECT_TRUE(engine.SetWeights(what.weights[version], kVersions[version]).ok());
    for (const GenerationRequest& request : what.mix.requests) {
      EXPECT_TRUE(engine.Submit(request).ok());
    }
    while (engine.load() > 0) {
      for (GenerationResult& result : StepOf(engine)) {
        const TrajectoryId id = result.id;
        alone[version].emplace(id, std::move(result));
      }
    }
  }
  return alone;
}

template <class T>
bool BeginsWith(const std::vector<T>& whole, const std::vector<T>& part) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

// What a cancelled sequence has that the whole one has not.
std::string NoPart(const GenerationResult& part, const GenerationResult& whole) {
  const std::string name = part.id.ToString() + ": cancelled with other ";
  const std::vector<float> logprobs(
      whole.logprobs.begin(),
      whole.logprobs.begin() +
          static_cast<std::ptrdiff_t>(std::min(part.logprobs.size(), whole.logprobs.size())));
  if (!BeginsWith(whole.tokens, part.tokens)) return name + "tokens";
  if (!SameBits(part.logprobs, logprobs)) return name + "logprobs";
  if (part.tokens.size() != part.prompt_tokens + part.logprobs.size()) return name + "columns";
  if (part.kv_history.size() > 1) return name + "KV history";
  const std::size_t written = part.kv_history.empty() ? 0 : part.kv_history[0].end;
  const bool begun = !part.logprobs.empty();
  if (begun ? written + 1 != part.tokens.size() : written >= part.tokens.size()) {
    return name + "positions written: " + std::to_string(written);
  }
  return "";
}

std::string Violation(const Outcome& outcome, const std::vector<Results>& alone) {
  if (!outcome.error.empty()) return outcome.error;
  for (const auto& [id, result] : outcome.results) {
    if (result.versions.empty()) return id.ToString() + ": of no version";
    const auto version = result.versions[0].version == kVersions[0] ? 0u : 1u;
    const std::string difference = Difference(result, alone[version].at(id));
    if (!difference.empty()) return difference;
  }
  for (const auto& [id, result] : outcome.cancelled) {
    if (result.logprobs.empty()) continue;
    const auto version = result.versions[0].version == kVersions[0] ? 0u : 1u;
    const std::string difference = NoPart(result, alone[version].at(id));
    if (!difference.empty()) return difference;
  }
  return "";
}

std::string Describe(std::uint64_t seed, const Way& way) {
  return Describe(seed, way.options) + ", depth " + std::to_string(way.ahead.depth) +
         (way.ahead.at_once ? ", at once" : ", at the end") + ", weights change after step " +
         std::to_string(way.swap_after);
}

class RunAhead : public ::testing::TestWithParam<int> {};

TEST_P(RunAhead, GivesWhatAnEngineThatWaitsGives) {
  std::uint64_t preemptions = 0, cancelled = 0, swapped = 0, shared = 0, copies = 0;
  std::uint64_t unknown = 0, stopped = 0;
  for (int i = 0; i < kMixesPerShard; ++i) {
    const std::uint64_t seed =
        kFirstMix + static_cast<std::uint64_t>(GetParam() * kMixesPerShard + i);
    const Case what(seed);
    kernels::SetKernelSet(what.mix.kernel_set);
    const std::vector<Results> alone = RunAlone(what);
    Chance chance(seed + 1000000);
    for (int run = 0; run < kRunsPerMix; ++run) {
      const Way way = RandomWay(chance, what.mix);
      const Outcome outcome = CaseRun(what, way, chance).Finish();
      ASSERT_EQ(Violation(outcome, alone), "") << Describe(seed, way);
      ASSERT_LE(outcome.log.most_on_their_way, static_cast<std::size_t>(way.ahead.depth));
      preemptions += outcome.counters.preemptions;
      cancelled += outcome.cancelled.size();
      shared += outcome.counters.shared_tokens;
      copies += outcome.log.copies;
      unknown += outcome.log.unknown_tokens;
      for (const auto& [id, result] : outcome.results) {
        swapped += result.versions[0].version == kVersions[1] ? 1 : 0;
        stopped += result.finish == FinishReason::kStop ? 1 : 0;
      }
    }
    kernels::SetKernelSet(kernels::KernelSet::kFp32);
  }
  // The cases reach what they are meant for.
  if (kMixesPerShard < 30) return;
  EXPECT_GT(preemptions, 20u);
  EXPECT_GT(cancelled, 20u);
  EXPECT_GT(swapped, 20u);
  EXPECT_GT(shared, 1000u);
  EXPECT_GT(copies, 20u);
  EXPECT_GT(unknown, 5000u);
  EXPECT_GT(stopped, 100u);
}

INSTANTIATE_TEST_SUITE_P(Shard, RunAhead, ::testing::Range(0, kShards));

// The same on a model that the tests below know by heart.
class RunAheadEngine : public EngineTest {
 protected:
  Engine Ahead(const EngineOptions& options, const AheadOptions& ahead = {}) {
    const std::int32_t pages = options.kv_pages > 0 ? options.kv_pages : 400;
    Engine engine(shape_, options,
                  std::make_unique<AheadRunner>(shape_, pages, options.max_batch, ahead, log_));
    EXPECT_TRUE(engine.SetWeights(weights_, kVersion).ok());
    return engine;
  }

  AheadLog log_;
};

TEST_F(RunAheadEngine, LaunchesEveryStepButTheFirstBeforeTheTokenBeforeItIsKnown) {
  for (int depth : {2, 3}) {
    log_ = {};
    AheadOptions ahead;
    ahead.depth = depth;
    Engine engine = Ahead({4, 64, 0}, ahead);
    ASSERT_TRUE(engine.Submit(Request(1, 20, 30)).ok());
    Results results;
    Drain(engine, results);
    ExpectSame(results.begin()->second, Alone(Request(1, 20, 30)));
    EXPECT_EQ(log_.most_on_their_way, static_cast<std::size_t>(depth));
    EXPECT_EQ(log_.unknown_tokens, 29u);
  }
}

TEST_F(RunAheadEngine, ComputesNoRowInVainWhereLengthsAreKnown) {
  std::size_t rows = 0;
  Engine engine = Ahead({8, 24, 0, false});
  for (const GenerationRequest& request : Mixed()) {
    GenerationRequest whole = request;
    whole.stop_tokens.clear();
    ASSERT_TRUE(engine.Submit(whole).ok());
    rows += whole.prompt.size() + whole.sampling.max_new_tokens - 1;
  }
  Results results;
  Drain(engine, results);
  EXPECT_EQ(log_.rows, rows);
}

TEST_F(RunAheadEngine, SharesPagesOfGeneratedTokensOnceTheyAreKnown) {
  const GenerationRequest first = Request(1, 20, 100);
  Engine engine = Ahead({4, 64, 60});
  ASSERT_TRUE(engine.Submit(first).ok());
  Results results;
  Drain(engine, results);
  GenerationRequest second = Request(2, 1, 20);
  second.prompt = results.at(first.id).tokens;
  second.prompt.push_back(3);
  ASSERT_TRUE(engine.Submit(second).ok());
  Drain(engine, results);
  // Pages of tokens that were known when the last row was launched.
  EXPECT_EQ(engine.counters().shared_tokens, 112u);
  ExpectSame(results.at(second.id), Alone(second));
}

TEST_F(RunAheadEngine, NothingIsLeftOfAStepThatOutlivesItsSequences) {
  Engine engine = Ahead({4, 64, 60});
  GenerationRequest stops = Request(1, 20, 60);
  const GenerationResult whole = Alone(stops);
  stops.stop_tokens = {whole.tokens[30]};
  ASSERT_TRUE(engine.Submit(stops).ok());
  Results results;
  Drain(engine, results);
  EXPECT_GT(log_.launched, log_.collected);  // a row behind the stop token
  ExpectSame(results.at(stops.id), Alone(stops));
  // The next sequence has its slot and its pages.
  ASSERT_TRUE(engine.Submit(Request(2, 40, 20)).ok());
  Drain(engine, results);
  ExpectSame(results.at(Request(2, 40, 20).id), Alone(Request(2, 40, 20)));
  ASSERT_TRUE(engine.SetWeights(weights_, {0, 9}).ok());
  EXPECT_EQ(log_.launched, log_.collected);
}

TEST_F(RunAheadEngine, AFailureReachesTheCallerWhereverItHappens) {
  for (bool at_launch : {true, false}) {
    for (int call = 0; call < 30; ++call) {
      SCOPED_TRACE((at_launch ? "launch " : "collect ") + std::to_string(call));
      log_ = {};
      AheadOptions ahead;
      (at_launch ? ahead.failing_launch : ahead.failing_collect) = call;
      Engine engine = Ahead({3, 16, 25}, ahead);
      std::set<TrajectoryId> open;
      for (const GenerationRequest& request : Mixed()) {
        ASSERT_TRUE(engine.Submit(request).ok());
        open.insert(request.id);
      }
      Status status;
      for (int step = 0; status.ok() && step < 100; ++step) {
        auto finished = engine.Step();
        status = finished.status();
        if (!finished.ok()) break;
        for (const GenerationResult& result : *finished) open.erase(result.id);
      }
      EXPECT_EQ(status.ToString(), PlantedFailure().ToString());
      // It stays so, and nothing waits for what will never come.
      EXPECT_EQ(engine.Step().status().ToString(), PlantedFailure().ToString());
      EXPECT_EQ(engine.load(), open.size());
      ASSERT_TRUE(engine.Cancel(*open.begin()).has_value());
      open.erase(open.begin());
      const std::vector<TrajectoryId> rest = engine.CancelAll();
      EXPECT_EQ(std::set<TrajectoryId>(rest.begin(), rest.end()), open);
      EXPECT_EQ(engine.counters().pages_used, 0u);
      EXPECT_EQ(engine.SetWeights(weights_, kVersion).ToString(), PlantedFailure().ToString());
      EXPECT_EQ(engine.Submit(Request(1, 4, 4)).ToString(), PlantedFailure().ToString());
    }
  }
}

// The runner of these tests finds what it is meant to find.
class AheadContract : public RunAheadEngine {
 protected:
  AheadContract() : runner_(shape_, 8, 3, {}, log_) {
    EXPECT_TRUE(runner_.SetWeights(weights_).ok());
  }

  // Rows [begin, end) of a slot, with a draw behind the last one.
  void Add(std::int32_t slot, std::int32_t begin, std::int32_t end, std::int32_t token,
           const std::vector<std::int32_t>& table) {
    for (std::int32_t position = begin; position < end; ++position) {
      step_.token.push_back(token);
      step_.position.push_back(position);
      step_.slot.push_back(slot);
      step_.table.push_back(table);
    }
    step_.draws.push_back({step_.rows() - 1, {}});
  }
  std::string Launched() {
    const std::string error = runner_.Launch(std::exchange(step_, {})).message();
    return error.substr(std::min(error.size(), std::string("contract: ").size()));
  }

  const std::vector<std::int32_t> a_{0, 1}, b_{2, 3}, both_{0, 3};
  AheadRunner runner_;
  model::StepInput step_;
};

TEST_F(AheadContract, IsKeptByGoodSteps) {
  Add(0, 0, 17, 5, a_);
  Add(1, 0, 3, 5, b_);
  EXPECT_EQ(Launched(), "");
  Add(0, 17, 18, model::kDrawnBefore, a_);
  Add(1, 3, 4, model::kDrawnBefore, b_);
  EXPECT_EQ(Launched(), "");
  Add(1, 4, 5, model::kDrawnBefore, b_);
  EXPECT_EQ(Launched(), "too many steps");
  EXPECT_EQ(runner_.SetWeights(weights_).code(), StatusCode::kInternal);
  EXPECT_TRUE(runner_.Collect().ok());
  EXPECT_TRUE(runner_.Collect().ok());
  EXPECT_EQ(runner_.Collect().status().code(), StatusCode::kInternal);
}

TEST_F(AheadContract, IsBrokenByRowsOutOfPlace) {
  Add(0, 0, 33, 5, a_);
  EXPECT_EQ(Launched(), "a table that does not cover its position");
  Add(0, 0, 3, 5, a_);
  Add(1, 0, 3, 5, b_);
  Add(0, 3, 4, 5, a_);
  EXPECT_EQ(Launched(), "two sequences in one slot");
  Add(0, 0, 3, 5, a_);
  step_.position.back() = 4;
  EXPECT_EQ(Launched(), "positions with a gap");
  Add(3, 0, 3, 5, a_);
  EXPECT_EQ(Launched(), "no such slot");
  Add(0, 0, 3, 5, a_);
  Add(1, 0, 3, 5, both_);
  EXPECT_EQ(Launched(), "a shared page is written");
  EXPECT_EQ(Launched(), "columns of different lengths, or none");
}

TEST_F(AheadContract, IsBrokenByTokensThatAreNotDrawn) {
  Add(0, 0, 1, model::kDrawnBefore, a_);
  EXPECT_EQ(Launched(), "a token that the step before does not draw");
  Add(0, 0, 3, 5, a_);
  EXPECT_EQ(Launched(), "");
  Add(0, 4, 5, model::kDrawnBefore, a_);
  EXPECT_EQ(Launched(), "a drawn token at another position");
  Add(0, 3, 4, model::kDrawnBefore, a_);
  step_.draws[0].sampling.top_k = 3;
  EXPECT_EQ(Launched(), "a sequence that may not run ahead does");
  Add(0, 3, 4, 37, a_);
  EXPECT_EQ(Launched(), "no such token");
}

TEST_F(AheadContract, IsBrokenByDrawsOrCopiesOutOfPlace) {
  Add(0, 0, 3, 5, a_);
  step_.draws[0].row = 1;
  EXPECT_EQ(Launched(), "a draw before the slot's last row");
  Add(0, 0, 3, 5, a_);
  Add(1, 0, 3, 5, b_);
  std::swap(step_.draws[0], step_.draws[1]);
  EXPECT_EQ(Launched(), "draws that do not ascend");
  Add(0, 0, 3, 5, a_);
  step_.copies = {{5, 0}, {6, 0}};
  EXPECT_EQ(Launched(), "two copies to one page");
  Add(0, 0, 3, 5, a_);
  step_.copies = {{5, 8}};
  EXPECT_EQ(Launched(), "a copy of no page");
}

}  // namespace
}  // namespace thresher::actor
