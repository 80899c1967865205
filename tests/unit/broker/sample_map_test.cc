#include "broker/sample_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "broker/state_bytes.h"

namespace thresher::broker {
namespace {

using Map = SampleMap<std::uint32_t>;

std::map<TrajectoryId, std::uint32_t> Contents(const Map& map) {
  std::map<TrajectoryId, std::uint32_t> contents;
  map.ForEach([&](const TrajectoryId& id, std::uint32_t value) {
    EXPECT_TRUE(contents.emplace(id, value).second) << id.ToString() << " is visited twice";
  });
  return contents;
}

// Against a std::map, with items of up to `samples` samples.
void Compare(std::uint32_t samples) {
  std::mt19937_64 random(7);
  Map map;
  std::map<TrajectoryId, std::uint32_t> model;
  for (int i = 0; i < 20000; ++i) {
    const TrajectoryId id{static_cast<Stream>(random() % 3),
                          static_cast<std::uint16_t>(random() % 2), random() % 40,
                          static_cast<std::uint32_t>(random() % samples)};
    const auto value = static_cast<std::uint32_t>(random());
    switch (random() % 7) {
      case 0:
        map.EraseGroup(GroupOf(id));
        std::erase_if(model,
                      [&](const auto& entry) { return GroupOf(entry.first) == GroupOf(id); });
        break;
      case 1:
      case 2:
      case 3:
        ASSERT_EQ(map.Erase(id), model.erase(id) == 1);
        break;
      case 4:
        map[id] = model[id] = value;
        break;
      default: {
        const auto [stands, added] = map.Insert(id, value);
        const auto [place, expected] = model.try_emplace(id, value);
        ASSERT_EQ(added, expected);
        ASSERT_EQ(*stands, place->second);
      }
    }
    ASSERT_EQ(map.size(), model.size());
    ASSERT_EQ(map.empty(), model.empty());
    ASSERT_EQ(map.Contains(id), model.contains(id));
    if (i % 50 != 0) continue;
    ASSERT_EQ(Contents(map), model);
    Map again;  // equal whatever was there in between
    for (const auto& [key, stands] : model) again.Insert(key, stands);
    ASSERT_TRUE(map == again);
  }
}

TEST(SampleMapTest, DoesWhatAMapDoes) { Compare(6); }

TEST(SampleMapTest, DoesWhatAMapDoesWithWideItems) { Compare(100); }

TEST(SampleMapTest, OneWideItemAmongNarrowOnesLosesNothing) {
  Map map;
  std::map<TrajectoryId, std::uint32_t> model;
  auto insert = [&](std::uint64_t item, std::uint32_t sample) {
    const TrajectoryId id{Stream::kTrain, 0, item, sample};
    map[id] = model[id] = static_cast<std::uint32_t>(100 * item + sample);
  };
  for (std::uint64_t item = 0; item < 50; ++item) insert(item, item % 3);
  insert(20, 70000);
  for (std::uint64_t item = 40; item < 90; ++item) insert(item, item % 5);
  EXPECT_EQ(Contents(map), model);
  EXPECT_EQ(map.size(), model.size());
  map.EraseGroup({Stream::kTrain, 0, 20});
  EXPECT_FALSE(map.Contains({Stream::kTrain, 0, 20, 70000}));
  EXPECT_FALSE(map.Contains({Stream::kTrain, 0, 20, 2}));
  EXPECT_TRUE(map.Contains({Stream::kTrain, 0, 21, 0}));
}

TEST(SampleMapTest, AnItemThatComesTwiceIsRefused) {
  StateWriter lying;
  lying(std::uint64_t{2});
  lying(GroupKey{}, std::uint64_t{2}, false, std::uint32_t{7}, true, std::uint32_t{7});
  lying(GroupKey{}, std::uint64_t{1}, true, std::uint32_t{7});
  const std::string lie = lying.Take();
  Map read;
  StateReader refusing(lie);
  refusing(read);
  EXPECT_FALSE(refusing.ok());
}

TEST(SampleMapTest, BytesGiveTheSameMapAndRowsThatEndWithNothingAreRefused) {
  Map map;
  map.Insert({Stream::kTrain, 0, 3, 5}, 7);
  map.Insert({Stream::kEval, 1, 4, 0}, 8);
  StateWriter writer;
  writer(map);
  const std::string bytes = writer.Take();
  Map read;
  StateReader reader(bytes);
  reader(read);
  EXPECT_TRUE(reader.ok() && reader.at_end());
  EXPECT_TRUE(read == map);
  EXPECT_EQ(read.size(), 2u);

  StateWriter lying;  // one row of one cell with nothing in it
  lying(std::uint64_t{1}, GroupKey{}, std::uint64_t{1}, false, std::uint32_t{7});
  const std::string lie = lying.Take();
  StateReader refusing(lie);
  refusing(read);
  EXPECT_FALSE(refusing.ok());
}

}  // namespace
}  // namespace thresher::broker
