#include "broker/lease_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

using std::chrono::milliseconds;

constexpr LeaseLimits kLimits{milliseconds(100), milliseconds(400), 3};

wire::Lease Samples(std::uint64_t item, std::uint32_t first, std::uint32_t count) {
  wire::Lease lease;
  lease.stream = Stream::kTrain;
  lease.item = item;
  lease.first_sample = first;
  lease.samples = count;
  lease.group_size = 8;
  return lease;
}

wire::Heartbeat Beat(std::uint64_t progress, std::vector<FencingToken> held,
                     std::uint32_t longest_ms = 1) {
  wire::Heartbeat beat;
  beat.progress = progress;
  beat.longest_step_ms = longest_ms;
  beat.held = std::move(held);
  return beat;
}

class LeaseTableTest : public ::testing::Test {
 protected:
  LeaseTable table_{BrokerEpoch(2), kLimits};
  TimePoint now_{std::chrono::seconds(1)};
  ActorId actor_{5};
};

TEST_F(LeaseTableTest, FencesGrowAndNameTheEpoch) {
  FencingToken a = table_.Grant(actor_, Samples(0, 0, 2), now_).fence;
  FencingToken b = table_.Grant(actor_, Samples(0, 2, 2), now_).fence;
  EXPECT_LT(a, b);
  EXPECT_EQ(a.value >> 40, 2u);
  LeaseTable next(BrokerEpoch(3), kLimits);
  EXPECT_LT(b, next.Grant(actor_, Samples(0, 0, 1), now_).fence);
}

TEST_F(LeaseTableTest, SilenceEndsALeaseAndHeartbeatsRenewIt) {
  FencingToken fence = table_.Grant(actor_, Samples(0, 0, 2), now_).fence;
  now_ += milliseconds(90);
  EXPECT_EQ(table_.Heartbeat(actor_, Beat(1, {fence}), now_), 0u);
  now_ += milliseconds(90);
  EXPECT_TRUE(table_.Expire(now_).empty());
  now_ += milliseconds(20);
  auto expired = table_.Expire(now_);
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0].unfinished.size(), 2u);
  EXPECT_EQ(expired[0].attempts, 1);
  EXPECT_FALSE(expired[0].give_up);
  EXPECT_FALSE(table_.IsLeased(Id(Stream::kTrain, 0, 0)));
  EXPECT_EQ(table_.Heartbeat(actor_, Beat(2, {fence}), now_), 1u) << "a stale fence renews nothing";
}

TEST_F(LeaseTableTest, AHungEngineLosesItsLeaseThoughItsHeartbeatGoesOn) {
  FencingToken fence = table_.Grant(actor_, Samples(0, 0, 1), now_).fence;
  for (int beat = 0; beat < 8; ++beat) {
    table_.Heartbeat(actor_, Beat(7, {fence}), now_);
    EXPECT_TRUE(table_.Expire(now_).empty());
    now_ += milliseconds(50);
  }
  now_ += milliseconds(10);
  table_.Heartbeat(actor_, Beat(7, {fence}), now_);
  ASSERT_EQ(table_.Expire(now_).size(), 1u);
}

TEST_F(LeaseTableTest, SlowStepsAreGivenTenTimesTheirLength) {
  FencingToken fence = table_.Grant(actor_, Samples(0, 0, 1), now_).fence;
  for (int beat = 0; beat < 12; ++beat) {
    table_.Heartbeat(actor_, Beat(7, {fence}, 100), now_);
    EXPECT_TRUE(table_.Expire(now_).empty()) << beat;
    now_ += milliseconds(80);
  }
}

TEST_F(LeaseTableTest, EveryExpiryOfAnItemDoublesItsNextLeaseUntilItIsGivenUp) {
  for (int attempt = 1; attempt <= 3; ++attempt) {
    table_.Grant(actor_, Samples(0, 0, 1), now_);
    now_ += milliseconds(100 << (attempt - 1));
    EXPECT_TRUE(table_.Expire(now_).empty()) << attempt;
    now_ += milliseconds(1);
    auto expired = table_.Expire(now_);
    ASSERT_EQ(expired.size(), 1u);
    EXPECT_EQ(expired[0].attempts, attempt);
    EXPECT_EQ(expired[0].give_up, attempt == 3);
  }
}

TEST_F(LeaseTableTest, ARestartFreesLeasesWithoutCountingAsAnExpiry) {
  for (int restart = 0; restart < 10; ++restart) {
    table_.Grant(actor_, Samples(0, 0, 4), now_);
    EXPECT_EQ(table_.ReleaseActor(actor_), 4u);
  }
  table_.Grant(actor_, Samples(0, 0, 4), now_);
  now_ += milliseconds(101);
  ASSERT_EQ(table_.Expire(now_).size(), 1u) << "the limit has not doubled";
}

TEST_F(LeaseTableTest, OnlyTheHolderMayRelease) {
  FencingToken fence = table_.Grant(actor_, Samples(0, 0, 3), now_).fence;
  EXPECT_EQ(table_.Release(ActorId(6), fence, {}).code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(table_.Release(actor_, FencingToken(1), {}).code(), StatusCode::kNotFound);
  ASSERT_TRUE(table_.Release(actor_, fence, {Id(Stream::kTrain, 0, 1)}).ok());
  EXPECT_FALSE(table_.IsLeased(Id(Stream::kTrain, 0, 1)));
  EXPECT_TRUE(table_.Holds(actor_, fence, Id(Stream::kTrain, 0, 2)));
  ASSERT_TRUE(table_.Release(actor_, fence, {}).ok());
  EXPECT_EQ(table_.leased_samples(), 0u);
}

// Random histories against a map from sample to holder.
TEST_F(LeaseTableTest, AgreesWithANaiveModel) {
  struct Held {
    std::uint32_t actor;
    FencingToken fence;
    TimePoint renewed;
  };
  for (int seed = 0; seed < 100; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    LeaseTable table(BrokerEpoch(1), {milliseconds(100), std::chrono::hours(1), 1 << 30});
    std::map<TrajectoryId, Held> model;
    std::map<std::uint64_t, int> expiries;
    TimePoint now{std::chrono::seconds(1)};
    for (int event = 0; event < 300; ++event) {
      std::uint32_t actor = random() % 3;
      TrajectoryId id = Id(Stream::kTrain, random() % 4, random() % 4);
      switch (random() % 6) {
        case 0:
        case 1:
          if (!model.contains(id)) {
            auto lease = table.Grant(ActorId(actor), Samples(id.item, id.sample, 1), now);
            model[id] = {actor, lease.fence, now};
          }
          break;
        case 2:
          table.Complete(id);
          model.erase(id);
          break;
        case 3: {
          std::vector<FencingToken> fences;
          for (auto& [held_id, held] : model) {
            if (held.actor != actor || random() % 2 == 0) continue;
            fences.push_back(held.fence);
            held.renewed = now;
          }
          EXPECT_EQ(table.Heartbeat(ActorId(actor), Beat(random(), fences), now), 0u);
          break;
        }
        case 4:
          if (random() % 8 == 0) {
            table.ReleaseActor(ActorId(actor));
            std::erase_if(model, [&](const auto& entry) { return entry.second.actor == actor; });
          }
          break;
        case 5: {
          now += milliseconds(random() % 60);
          std::set<std::uint64_t> items;
          std::size_t expected = std::erase_if(model, [&](const auto& entry) {
            auto limit = milliseconds(100) * (1 << std::min(20, expiries[entry.first.item]));
            if (now - entry.second.renewed <= limit) return false;
            items.insert(entry.first.item);
            return true;
          });
          for (std::uint64_t item : items) ++expiries[item];
          EXPECT_EQ(table.Expire(now).size(), expected);
          break;
        }
      }
      ASSERT_EQ(table.leased_samples(), model.size());
      for (std::uint32_t a = 0; a < 3; ++a) {
        std::size_t held = 0;
        for (const auto& [held_id, entry] : model) held += entry.actor == a ? 1 : 0;
        ASSERT_EQ(table.HeldBy(ActorId(a)), held);
      }
      for (const auto& [held_id, held] : model) {
        ASSERT_TRUE(table.Holds(ActorId(held.actor), held.fence, held_id));
      }
    }
  }
}

// Looks at every lease at every tick.
class NaiveExpiry {
 public:
  struct Lease {
    ActorId actor;
    wire::Lease lease;
    TimePoint granted, renewed;
  };
  struct Engine {
    std::uint64_t progress = 0;
    TimePoint changed;
    Duration longest{};
  };

  // Fences that have expired, and why.
  std::vector<std::pair<FencingToken, std::string>> Expire(TimePoint now) {
    std::vector<std::pair<FencingToken, std::string>> expired;
    for (const auto& [fence, held] : leases) {
      const std::int64_t doubled = std::int64_t{1} << attempts[held.lease.item];
      const auto ms = [](Duration d) {
        return std::to_string(std::chrono::duration_cast<milliseconds>(d).count()) + " ms";
      };
      const Duration silent = now - held.renewed;
      auto engine = engines.find(held.actor);
      if (silent > kLimits.silence * doubled) {
        expired.emplace_back(fence, "silent for " + ms(silent));
      } else if (engine != engines.end()) {
        const Duration still = now - std::max(held.granted, engine->second.changed);
        const Duration allowed = std::max(kLimits.min_progress, 10 * engine->second.longest);
        if (still > allowed * doubled) {
          expired.emplace_back(fence, "no progress for " + ms(still));
        }
      }
    }
    std::set<std::uint64_t> items;
    for (const auto& [fence, reason] : expired) items.insert(leases.at(fence).lease.item);
    for (std::uint64_t item : items) ++attempts[item];
    for (const auto& [fence, reason] : expired) leases.erase(fence);
    return expired;
  }

  std::map<FencingToken, Lease> leases;
  std::map<ActorId, Engine> engines;
  std::map<std::uint64_t, int> attempts;
};

TEST(LeaseTableProperty, ExpiresWhatALookAtEveryLeaseWouldExpire) {
  std::size_t expiries = 0;
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    LeaseTable table(BrokerEpoch(1), kLimits);
    NaiveExpiry naive;
    TimePoint now{std::chrono::seconds(1)};
    std::uint64_t next_item = 0;
    for (int step = 0; step < 600; ++step) {
      const ActorId actor(random() % 4);
      std::vector<FencingToken> held;
      for (const auto& [fence, lease] : naive.leases) {
        if (lease.actor == actor && random() % 4 > 0) held.push_back(fence);
      }
      switch (random() % 9) {
        case 0:
        case 1: {
          const std::uint64_t item = random() % 3 == 0 ? next_item++ : random() % (next_item + 1);
          const std::uint32_t sample = 8 * static_cast<std::uint32_t>(step);
          const wire::Lease lease = table.Grant(actor, Samples(item, sample, 2), now);
          naive.leases[lease.fence] = {actor, lease, now, now};
          break;
        }
        case 2:
        case 3:
        case 4: {
          const std::uint32_t longest =
              random() % 2 == 0 ? 1 : static_cast<std::uint32_t>(random() % 80);
          auto [known, first] = naive.engines.try_emplace(actor);
          NaiveExpiry::Engine& engine = known->second;
          const std::uint64_t progress = engine.progress + random() % 2;
          table.Heartbeat(actor, Beat(progress, held, longest), now);
          if (first || progress != engine.progress) engine.changed = now;
          engine.progress = progress;
          engine.longest = milliseconds(longest);
          for (FencingToken fence : held) naive.leases[fence].renewed = now;
          break;
        }
        case 5:
          if (held.empty()) break;
          if (random() % 2 == 0) {
            ASSERT_TRUE(table.Release(actor, held.front(), {}).ok());
          } else {
            const wire::Lease done = naive.leases[held.front()].lease;
            table.Complete({Stream::kTrain, 0, done.item, done.first_sample});
            table.Complete({Stream::kTrain, 0, done.item, done.first_sample + 1});
          }
          naive.leases.erase(held.front());
          break;
        case 6:
          if (random() % 10 == 0) {
            table.ReleaseActor(actor);
            naive.engines.erase(actor);
            std::erase_if(naive.leases, [&](const auto& l) { return l.second.actor == actor; });
          } else if (random() % 5 == 0 && next_item > 0) {
            const std::uint64_t item = random() % next_item;
            table.Forget({Stream::kTrain, 0, item});
            naive.attempts.erase(item);
          }
          break;
        default:
          now += milliseconds(random() % 50);
      }
      std::vector<std::pair<FencingToken, std::string>> expired;
      for (const auto& expiry : table.Expire(now)) {
        expired.emplace_back(expiry.lease.fence, expiry.reason);
        EXPECT_EQ(expiry.unfinished.size(), 2u);
      }
      ASSERT_EQ(expired, naive.Expire(now)) << "seed " << seed << " step " << step;
      ASSERT_EQ(table.leases(), naive.leases.size());
      expiries += expired.size();
    }
  }
  EXPECT_GT(expiries, 1000u);
}

}  // namespace
}  // namespace thresher::broker
