#include "broker/kept_uploads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace thresher::broker {
namespace {

using Numbers = std::vector<std::uint64_t>;

TrajectoryId Id(std::uint64_t item, Stream stream = Stream::kTrain) { return {stream, 0, item, 0}; }
constexpr ActorId kOne(1), kTwo(2);

TEST(KeptUploads, AnUploadIsConsumedWhenNoneOfItsSamplesIsOpen) {
  KeptUploads kept;
  kept.Track(kOne, 5, {Id(1), Id(2)});
  kept.Settle(Id(1));
  EXPECT_TRUE(kept.TakeNews().empty());
  EXPECT_TRUE(kept.Consumed(kOne, {5}).empty());
  EXPECT_EQ(kept.uploads(), 1u);
  EXPECT_EQ(kept.samples(), 1u);
  kept.Settle(Id(2));
  EXPECT_EQ(kept.TakeNews().at(kOne), Numbers{5});
  EXPECT_TRUE(kept.TakeNews().empty());
  EXPECT_EQ(kept.Consumed(kOne, {4, 5, 6}), Numbers{5});
  EXPECT_TRUE(kept.Consumed(kTwo, {5}).empty());
  EXPECT_EQ(kept.uploads(), 0u);
}

TEST(KeptUploads, AnUploadWithoutOpenSamplesIsConsumedAtOnce) {
  KeptUploads kept;
  kept.Track(kOne, 1, {});
  EXPECT_EQ(kept.TakeNews().at(kOne), Numbers{1});
}

TEST(KeptUploads, ACopyOfASampleKeepsBothUploadsAndACopyOfAnUploadChangesNothing) {
  KeptUploads kept;
  kept.Track(kOne, 1, {Id(1)});
  kept.Track(kTwo, 1, {Id(1), Id(2)});
  kept.Track(kTwo, 1, {Id(1), Id(2)});
  kept.Settle(Id(1));
  EXPECT_EQ(kept.Consumed(kOne, {1}), Numbers{1});
  EXPECT_TRUE(kept.Consumed(kTwo, {1}).empty());
  kept.Settle(Id(2));
  EXPECT_EQ(kept.Consumed(kTwo, {1}), Numbers{1});
  kept.Track(kTwo, 1, {Id(3)});  // it was consumed
  EXPECT_EQ(kept.samples(), 0u);
}

TEST(KeptUploads, TheNextProcessOfAnActorBeginsAnew) {
  KeptUploads kept;
  kept.Track(kOne, 1, {Id(1)});
  kept.Track(kTwo, 1, {Id(1)});
  kept.Track(kOne, 2, {});
  kept.Forget(kOne);
  EXPECT_TRUE(kept.TakeNews().empty());
  EXPECT_TRUE(kept.Consumed(kOne, {2}).empty());
  kept.Track(kOne, 1, {Id(2)});
  kept.Settle(Id(1));
  EXPECT_TRUE(kept.Consumed(kOne, {1}).empty());
  EXPECT_EQ(kept.Consumed(kTwo, {1}), Numbers{1});
}

// Against a model that remembers every upload with its samples.
TEST(KeptUploads, IsWhatAModelThatRemembersEverythingSays) {
  struct Upload {
    std::set<TrajectoryId> open;
    bool told = false;
  };
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    KeptUploads kept;
    std::map<ActorId, std::map<std::uint64_t, Upload>> model;
    for (int step = 0; step < 300; ++step) {
      const ActorId actor(static_cast<std::uint32_t>(random() % 3));
      switch (random() % 8) {
        case 0:
        case 1:
        case 2: {
          const std::uint64_t number = random() % 40;
          std::vector<TrajectoryId> open;
          for (std::uint64_t i = random() % 4; i > 0; --i) open.push_back(Id(random() % 30));
          kept.Track(actor, number, open);
          model[actor].try_emplace(number, Upload{{open.begin(), open.end()}, false});
          break;
        }
        case 3:
        case 4:
        case 5: {
          const TrajectoryId id = Id(random() % 30);
          kept.Settle(id);
          for (auto& [a, uploads] : model) {
            for (auto& [n, upload] : uploads) upload.open.erase(id);
          }
          break;
        }
        case 6: {
          const std::uint64_t below = random() % 10;
          kept.SettleIf([&](const TrajectoryId& id) { return id.item < below; });
          for (auto& [a, uploads] : model) {
            for (auto& [n, upload] : uploads) {
              std::erase_if(upload.open, [&](const TrajectoryId& id) { return id.item < below; });
            }
          }
          break;
        }
        default:
          if (random() % 4 > 0) break;
          kept.Forget(actor);
          model.erase(actor);
      }
      std::map<ActorId, Numbers> news;
      std::size_t open_uploads = 0;
      std::set<TrajectoryId> open;
      for (auto& [a, uploads] : model) {
        Numbers all, consumed;
        for (auto& [n, upload] : uploads) {
          all.push_back(n);
          open.insert(upload.open.begin(), upload.open.end());
          open_uploads += !upload.open.empty();
          if (!upload.open.empty()) continue;
          consumed.push_back(n);
          if (!std::exchange(upload.told, true)) news[a].push_back(n);
        }
        ASSERT_EQ(kept.Consumed(a, all), consumed) << "seed " << seed << " step " << step;
      }
      ASSERT_EQ(kept.TakeNews(), news) << "seed " << seed << " step " << step;
      ASSERT_EQ(kept.uploads(), open_uploads);
      ASSERT_EQ(kept.samples(), open.size());
    }
  }
}

}  // namespace
}  // namespace thresher::broker
