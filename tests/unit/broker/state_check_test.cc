// States that no journal leads to, one for each way to contradict oneself.
#include "broker/state_check.h"

#include <gtest/gtest.h>

#include <functional>

#include "broker/batcher.h"
#include "broker/snapshot.h"
#include "broker/state_bytes.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

// The `skip`-th field of type T that a class names in Fields().
template <typename T>
class Reach {
 public:
  explicit Reach(int skip) : skip_(skip) {}
  template <typename... Ts>
  void operator()(Ts&... values) {
    (Look(values), ...);
  }
  T* found() const { return found_; }

 private:
  void Look(T& value) {
    if (skip_-- == 0) found_ = &value;
  }
  template <typename Other>
  void Look(Other&) {}

  int skip_;
  T* found_ = nullptr;
};
template <typename T, typename Owner>
T& Part(Owner& owner, int skip = 0) {
  Reach<T> reach(skip);
  owner.Fields(reach);
  return *reach.found();
}

using Units = std::map<UnitKey, Unit>;
using Batches = std::map<std::uint32_t, wire::BatchComposed>;
using Commits = std::map<std::uint32_t, wire::StepCommitted>;

// Two steps are trained and durable, a third is composed, a round is evaluated and one is open.
class StateCheckTest : public ::testing::Test {
 protected:
  StateCheckTest() : state_(Plan(TinyConfig({"rl.steps=3", "eval.every=1"}))) {
    for (std::uint32_t step = 0; step < 3; ++step) Train(step);
    const EvalRound& round = state_.plan().evals()[0];
    Fill(Issued(round));
    Apply(wire::RoundEvaluated{0, round.version, RoundDigest(state_.groups(), 0), round.items,
                               round.samples});
    Apply(Issued(state_.plan().evals()[1]));
    Fill(Issued(state_.plan().Step(3), V(3)));
    Apply(ComposeBatch(state_.groups(), state_.plan().Step(3), 0, false).batch);
  }

  void Apply(const wire::JournalRecord& record) {
    const Status applied = state_.Apply(record);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
  }
  void Fill(const wire::ItemsIssued& issued) {
    Apply(issued);
    for (std::uint64_t i = 0; i < issued.items; ++i) {
      for (std::uint32_t sample = 0; sample < issued.samples; ++sample) {
        Apply(Accepted({issued.stream, 0, issued.first_item + i, sample}, sample));
      }
    }
  }
  void Train(std::uint32_t number) {
    const StepPlan step = state_.plan().Step(number);
    Fill(Issued(step, V(step.phase == Phase::kRl ? number : 0)));
    const wire::BatchComposed batch = ComposeBatch(state_.groups(), step, 0, false).batch;
    Apply(batch);
    const Hash128 chain = wire::HashChain(state_.ChainBefore(number), batch.digest);
    Apply(wire::StepCommitted{0, number, batch.digest, chain, H("state"), 5, 5, 0, false});
    Apply(wire::StepsDurable{0, number + 1, "checkpoints/x", H("manifest"), chain});
    Apply(wire::VersionPublished{V(number + 1), H("weights"), 1});
  }

  GroupAssembler& assembler() { return Part<GroupAssembler>(state_); }
  Units& units() { return Part<Units>(assembler()); }
  Unit& Step() { return units().begin()->second; }
  Unit& Round() { return units().rbegin()->second; }

  RunState state_;
};

TEST_F(StateCheckTest, ATrueStatePasses) { EXPECT_TRUE(CheckState(state_).ok()); }

TEST_F(StateCheckTest, WhateverContradictsItselfIsRefusedAndNamed) {
  const RunState truth = state_;
  const std::pair<const char*, std::function<void()>> lies[] = {
      {"has 5 samples", [&] { Step().slots.pop_back(); }},
      {"not that of the plan", [&] { ++Step().issued.items; }},
      {"not that of the plan", [&] { Round().issued.samples = 1u << 30; }},
      {"not that of the plan",
       [&] {
         units()[{true, 1}] = Step();
       }},
      {"waits for", [&] { ++Round().outstanding; }},
      {"not what was accepted", [&] { Step().slots[0].content_hash.low ^= 1; }},
      {"not what was accepted", [&] { Round().slots[0].arrived = true; }},
      {"in no batch", [&] { Part<Batches>(state_).erase(3); }},
      {"in a batch of", [&] { Part<Batches>(state_)[3].ids.pop_back(); }},
      {"holds", [&] { Part<Batches>(state_)[3].ids[0] = Part<Batches>(state_)[3].ids[1]; }},
      {"without their batch", [&] { Part<Batches>(state_).erase(2); }},
      {"which is not open",
       [&] {
         Part<Batches>(state_)[4] = {0, 4, {}, {}, 0};
       }},
      {"no commit", [&] { Part<Commits>(state_).erase(1); }},
      {"no commit", [&] { Part<Commits>(state_).erase(2); }},
      {"committed 9", [&] { Part<std::uint32_t>(state_) = 9; }},
      {"finished", [&] { Part<bool>(state_) = true; }},
      {"without their items",
       [&] {
         Part<std::map<UnitKey, wire::ItemsIssued>>(state_).erase({false, 2});
       }},
      {"what is issued", [&] { Part<std::array<IntervalSet, 2>>(state_)[0].Insert(4, 5); }},
      {"forgotten",
       [&] {
         Part<Dedup>(state_).Forget(Stream::kEval, 0, state_.plan().evals()[1].first_item, 1);
       }},
      {"accepted samples", [&] { Part<Dedup>(state_).Remember(Id(Stream::kUser, 1), H("x"), 0); }},
      {"is evaluated",
       [&] { Part<std::map<std::uint32_t, EvalSummary>>(state_)[0].pass_at.clear(); }},
      {"is published as",
       [&] { Part<std::map<PolicyVersion, wire::VersionPublished>>(state_)[V(3)].version = V(2); }},
      {"versions are remembered", [&] { Part<std::uint64_t>(state_) = 0; }},
      {"statistics", [&] { Part<std::map<std::uint32_t, StepStatistics>>(state_)[3].rounds = 2; }},
      {"no statistics", [&] { Part<std::map<std::uint32_t, StepStatistics>>(state_).erase(3); }},
      {"balance", [&] { Part<Ledger>(state_).Issue(Stream::kEval, 0, 1); }},
  };
  for (const auto& [expected, tell] : lies) {
    state_ = truth;
    tell();
    const Status checked = CheckState(state_);
    EXPECT_EQ(checked.code(), StatusCode::kDataLoss) << expected;
    EXPECT_NE(checked.message().find(expected), std::string::npos)
        << expected << ": " << checked.ToString();
    EXPECT_FALSE(DecodeSnapshot(EncodeSnapshot({}, {}, EncodeState(state_)), state_.plan()).ok())
        << expected;
  }
}

}  // namespace
}  // namespace thresher::broker
