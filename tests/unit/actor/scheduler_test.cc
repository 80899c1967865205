#include "actor/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "common/base/random.h"

namespace thresher::actor {
namespace {

constexpr PolicyVersion kVersion{0, 4};
constexpr std::int32_t kVocab = 64;

// Runs a scheduler without a model: a page slot holds the hash of the tokens up to its position,
// as the keys and values of a real one depend on them; sampled tokens follow from the same hash.
class FakeEngine {
 public:
  explicit FakeEngine(const SchedulerOptions& options)
      : scheduler(options), slots_(static_cast<std::size_t>(options.pages) * kPageSize) {}

  Sequence* Add(std::uint64_t item, std::vector<std::int32_t> prompt, std::uint32_t new_tokens) {
    GenerationRequest request;
    request.id.item = item;
    request.prompt = std::move(prompt);
    request.sampling.max_new_tokens = new_tokens;
    auto sequence = std::make_unique<Sequence>(std::move(request), kVocab);
    Sequence* raw = sequence.get();
    live_[item] = raw;
    scheduler.Add(std::move(sequence));
    return raw;
  }

  // One step; the finished items.
  std::vector<std::uint64_t> Step() {
    const StepPlan plan = scheduler.Plan(kVersion);
    for (const PageCopy& copy : plan.copies) {
      for (int i = 0; i < kPageSize; ++i) Slot(copy.to, i) = Slot(copy.from, i);
    }
    rows = 0;
    for (const RowRange& range : plan.ranges) {
      rows += range.count;
      for (std::size_t p = range.begin; p < range.begin + range.count; ++p) {
        Slot(range.sequence->table.pages[p / kPageSize], p % kPageSize) =
            Prefix(*range.sequence, p);
      }
    }
    scheduler.Processed(plan, kVersion);
    CheckContents();
    std::vector<std::uint64_t> finished;
    for (const RowRange& range : plan.ranges) {
      Sequence& sequence = *range.sequence;
      if (!range.drawn) continue;
      model::RowSample sample;
      sample.token = static_cast<std::int32_t>(Prefix(sequence, sequence.result.tokens.size() - 1) *
                                               31 % kVocab);
      if (!sequence.Take(sample, kVersion)) continue;
      finished.push_back(sequence.result.id.item);
      histories[sequence.result.id.item] = sequence.history.spans();
      live_.erase(sequence.result.id.item);
      scheduler.Remove(sequence);
    }
    return finished;
  }

  // Every position that a sequence takes for computed holds what its own tokens give.
  void CheckContents() {
    for (const auto& [item, sequence] : live_) {
      std::uint64_t hash = kNothing;
      for (std::size_t p = 0; p < sequence->processed; ++p) {
        hash = Next(hash, sequence->result.tokens[p]);
        ASSERT_EQ(Slot(sequence->table.pages[p / kPageSize], p % kPageSize), hash)
            << "sequence " << item << ", position " << p;
      }
    }
  }
  const std::map<std::uint64_t, Sequence*>& live() const { return live_; }

  Scheduler scheduler;
  std::size_t rows = 0;  // of the last step
  std::map<std::uint64_t, std::vector<KvSpan>> histories;

 private:
  std::uint64_t& Slot(std::int32_t page, std::size_t slot) {
    return slots_[static_cast<std::size_t>(page) * kPageSize + slot];
  }
  static constexpr std::uint64_t kNothing = 1469598103934665603u;
  static std::uint64_t Next(std::uint64_t hash, std::int32_t token) {
    return (hash ^ static_cast<std::uint64_t>(token)) * 1099511628211u;
  }
  static std::uint64_t Prefix(const Sequence& sequence, std::size_t position) {
    std::uint64_t hash = kNothing;
    for (std::size_t p = 0; p <= position; ++p) hash = Next(hash, sequence.result.tokens[p]);
    return hash;
  }
  std::vector<std::uint64_t> slots_;
  std::map<std::uint64_t, Sequence*> live_;
};

std::vector<std::int32_t> Prompt(std::uint64_t seed, std::size_t size) {
  std::vector<std::int32_t> prompt;
  for (std::size_t i = 0; i < size; ++i) {
    prompt.push_back(static_cast<std::int32_t>((seed * 7 + i * i + 3 * i) % kVocab));
  }
  return prompt;
}

TEST(Scheduler, AGroupsPromptIsComputedOnce) {
  for (std::size_t size : {2, 10, 16, 17, 32, 45}) {
    FakeEngine engine({.pages = 200});
    for (std::uint64_t i = 0; i < 8; ++i) engine.Add(i, Prompt(1, size), 20);
    engine.Step();
    EXPECT_EQ(engine.rows, size);  // the first one's prompt; the others wait for it
    EXPECT_EQ(engine.scheduler.running(), 1u);
    engine.Step();
    EXPECT_EQ(engine.rows, 8u);  // their last prompt position, and its next token
    const SchedulerCounters& counters = engine.scheduler.counters();
    EXPECT_EQ(counters.prefill_tokens, size + 7);
    EXPECT_EQ(counters.shared_tokens, 7 * (size - 1));
    EXPECT_EQ(counters.prefix_hits, 7u);
    // Whole pages before the last position are shared by reference.
    EXPECT_EQ(static_cast<std::size_t>(engine.scheduler.pool().shared()), (size - 1) / 16);
    while (!engine.live().empty()) engine.Step();
    EXPECT_EQ(engine.scheduler.pool().used(), 0);
  }
}

TEST(Scheduler, WithoutSharingEverySequenceComputesItsPrompt) {
  FakeEngine engine({.pages = 200, .prefix_sharing = false});
  for (std::uint64_t i = 0; i < 8; ++i) engine.Add(i, Prompt(1, 20), 5);
  engine.Step();
  EXPECT_EQ(engine.rows, 160u);
  EXPECT_EQ(engine.scheduler.pool().shared(), 0);
}

TEST(Scheduler, OtherPromptsPassThoseThatWaitForTheirPrefix) {
  FakeEngine engine({.pages = 200, .prefix_sharing = true});
  engine.Add(0, Prompt(1, 20), 5);
  engine.Add(1, Prompt(1, 20), 5);
  engine.Add(2, Prompt(2, 30), 5);
  engine.Step();
  EXPECT_EQ(engine.rows, 50u);  // 0 and 2
  engine.Step();
  EXPECT_EQ(engine.rows, 3u);
}

TEST(Scheduler, AGroupWaitsWhileItsPromptIsComputedInChunks) {
  FakeEngine engine({.prefill_chunk = 8, .pages = 200});
  for (std::uint64_t i = 0; i < 3; ++i) engine.Add(i, Prompt(1, 20), 5);
  for (std::size_t expected : {8u, 8u, 4u, 3u}) {
    engine.Step();
    EXPECT_EQ(engine.rows, expected);
  }
}

TEST(Scheduler, APrefixOutlivesItsSequences) {
  FakeEngine engine({.pages = 40});
  engine.Add(0, Prompt(1, 40), 3);
  while (!engine.live().empty()) engine.Step();
  EXPECT_EQ(engine.scheduler.pool().used(), 0);
  EXPECT_GT(engine.scheduler.pool().retained(), 0);
  std::vector<std::int32_t> longer = Prompt(1, 40);
  longer.insert(longer.end(), {1, 2, 3, 4, 5});
  engine.Add(1, longer, 3);
  engine.Step();
  EXPECT_EQ(engine.rows, 5u);
}

TEST(Scheduler, KeptPagesAreUsedWhenNoOtherIsFree) {
  FakeEngine engine({.pages = 4});
  for (std::uint64_t i = 0; i < 10; ++i) {
    engine.Add(i, Prompt(i, 50), 14);  // all four pages
    while (!engine.live().empty()) engine.Step();
  }
  EXPECT_EQ(engine.scheduler.counters().prefix_hits, 0u);
  EXPECT_EQ(engine.scheduler.pool().available(), 4);
}

TEST(Scheduler, ASequenceThatNeedsEveryPageRunsThoughItsOwnPrefixIsKeptThere) {
  FakeEngine engine({.pages = 4});
  engine.Add(0, Prompt(1, 57), 7);
  while (!engine.live().empty()) engine.Step();
  engine.Add(1, Prompt(1, 57), 7);  // three whole pages are found; the fourth holds its tail
  for (int step = 0; !engine.live().empty(); ++step) {
    ASSERT_LT(step, 20);
    engine.Step();
  }
  EXPECT_EQ(engine.scheduler.counters().shared_tokens, 48u);
}

TEST(Scheduler, TheHeadOfTheQueueIsNotOvertakenForWantOfPages) {
  FakeEngine engine({.pages = 10});
  engine.Add(0, Prompt(0, 80), 30);  // 5 pages, 7 at its end
  engine.Step();
  engine.Add(1, Prompt(1, 100), 10);  // 7 pages
  engine.Add(2, Prompt(2, 3), 3);     // would fit
  std::vector<std::uint64_t> order;
  while (!engine.live().empty()) {
    const bool first_runs = engine.live().contains(0);
    for (std::uint64_t item : engine.Step()) order.push_back(item);
    if (first_runs && engine.live().contains(0)) {
      EXPECT_EQ(engine.scheduler.waiting(), 2u);
    }
  }
  EXPECT_EQ(order[0], 0u);
}

TEST(Scheduler, ThePreemptedSequenceIsTheNewestAndReturnsFirst) {
  FakeEngine engine({.pages = 6});
  engine.Add(0, Prompt(0, 16), 60);  // grows to 5 pages
  engine.Add(1, Prompt(1, 16), 60);
  engine.Step();
  EXPECT_EQ(engine.scheduler.running(), 2u);
  engine.Add(2, Prompt(2, 3), 60);
  std::vector<std::uint64_t> order;
  while (!engine.live().empty()) {
    for (std::uint64_t item : engine.Step()) order.push_back(item);
  }
  EXPECT_EQ(order, (std::vector<std::uint64_t>{0, 1, 2}));
  EXPECT_GE(engine.scheduler.counters().preemptions, 2u);
  EXPECT_GT(engine.scheduler.counters().recomputed_tokens, 0u);
}

TEST(Scheduler, APreemptionWithinAVersionLeavesNoTraceInTheHistory) {
  FakeEngine engine({.pages = 6});
  for (std::uint64_t i = 0; i < 3; ++i) engine.Add(i, Prompt(i, 16), 60);
  while (!engine.live().empty()) engine.Step();
  ASSERT_GT(engine.scheduler.counters().preemptions, 0u);
  for (std::uint64_t i = 0; i < 3; ++i) {
    // The last token was sampled, never processed.
    EXPECT_EQ(engine.histories.at(i), (std::vector<KvSpan>{{0, 75, kVersion, false}}));
  }
}

TEST(Scheduler, RemovalGivesThePagesBackAtAnyStage) {
  FakeEngine engine({.max_batch = 2, .pages = 20});
  for (std::uint64_t i = 0; i < 3; ++i) engine.Add(i, Prompt(i, 40), 9);
  engine.Step();
  for (std::uint64_t i : {2, 0, 1}) {
    TrajectoryId id;
    id.item = i;
    const Sequence* sequence = engine.scheduler.Find(id);
    ASSERT_NE(sequence, nullptr);
    EXPECT_EQ(engine.scheduler.Remove(*sequence)->result.id.item, i);
    EXPECT_EQ(engine.scheduler.Find(id), nullptr);
  }
  EXPECT_EQ(engine.scheduler.pool().used(), 0);
  EXPECT_TRUE(engine.scheduler.Plan(kVersion).ranges.empty());
  engine.scheduler.ForgetPrefixes();
  EXPECT_EQ(engine.scheduler.pool().retained(), 0);
}

// Random work under random pressure: contents are right at every step, everything finishes, the
// oldest sequence is never preempted, pages add up.
TEST(Scheduler, RandomWorkEndsAndNobodySeesAnothersPages) {
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    RandomSequence random(seed, {}, RandomPurpose::kBootstrap);
    SchedulerOptions options;
    options.max_batch = static_cast<std::int32_t>(random.Between(1, 12));
    options.prefill_chunk = static_cast<std::int32_t>(random.Between(1, 60));
    options.pages = static_cast<std::int32_t>(random.Between(8, 40));
    options.prefix_sharing = random.Below(4) != 0;
    FakeEngine engine(options);
    std::uint64_t next = 0, steps = 0;
    const std::uint64_t total = 30;
    while (next < total || !engine.live().empty()) {
      ASSERT_LT(++steps, 20000u) << "seed " << seed;
      while (next < total && random.Below(3) == 0) {
        // Few prompts, many with a common beginning; sometimes one that takes nearly everything.
        std::vector<std::int32_t> prompt = Prompt(random.Below(3), 1 + random.Below(60));
        if (random.Below(3) == 0) prompt.push_back(static_cast<std::int32_t>(random.Below(kVocab)));
        const auto most = static_cast<std::uint64_t>(options.pages) * kPageSize - prompt.size();
        const auto tokens = 1 + random.Below(random.Below(8) == 0 ? most : 40);
        engine.Add(next++, prompt, static_cast<std::uint32_t>(tokens));
      }
      const auto oldest = engine.live().empty() ? engine.live().end() : engine.live().begin();
      const bool ran = oldest != engine.live().end() && oldest->second->processed > 0;
      const std::uint64_t item = ran ? oldest->first : 0;
      const std::size_t before = ran ? oldest->second->processed : 0;
      engine.Step();
      if (HasFatalFailure()) return;
      if (ran && engine.live().contains(item)) {
        ASSERT_GE(engine.live().at(item)->processed, before) << "the oldest was preempted";
      }
      const PagePool& pool = engine.scheduler.pool();
      ASSERT_EQ(pool.used() + pool.available(), options.pages);
      ASSERT_LE(engine.rows, static_cast<std::size_t>(options.max_batch + options.prefill_chunk));
      std::set<std::int32_t> held;
      for (const auto& [id, sequence] : engine.live()) {
        held.insert(sequence->table.pages.begin(), sequence->table.pages.end());
      }
      ASSERT_EQ(static_cast<std::size_t>(pool.used()), held.size());
    }
    ASSERT_EQ(engine.scheduler.pool().used(), 0);
  }
}

}  // namespace
}  // namespace thresher::actor
