#include "broker/number_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace thresher::broker {
namespace {

TEST(NumberMap, AgreesWithAMapWhateverStaysAndGoes) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    NumberMap<std::string> map;
    std::map<std::uint64_t, std::string> naive;
    std::uint64_t next = 1000;
    for (int turn = 0; turn < 5000; ++turn) {
      const std::size_t most = turn % 1000 < 500 ? 400 : 4;  // blocks come, go and come again
      if (naive.size() < most) {
        const std::string value = std::to_string(random());
        EXPECT_EQ(map.Insert(next, value), value);
        naive[next++] = value;
      } else {
        auto gone = naive.begin();
        std::advance(gone, random() % naive.size());
        EXPECT_TRUE(map.Erase(gone->first));
        EXPECT_FALSE(map.Erase(gone->first));
        naive.erase(gone);
      }
      const std::uint64_t asked = 990 + random() % (next - 980);
      const auto known = naive.find(asked);
      const std::string* found = map.Find(asked);
      ASSERT_EQ(found != nullptr, known != naive.end()) << asked;
      if (found != nullptr) EXPECT_EQ(*found, known->second);
      ASSERT_EQ(map.size(), naive.size());
    }
    std::map<std::uint64_t, std::string> visited;
    map.ForEach([&](std::uint64_t number, std::string& value) { visited[number] = value; });
    EXPECT_EQ(visited, naive);
  }
}

TEST(NumberMap, APlaceThatIsUsedAgainIsEmpty) {
  NumberMap<std::string> map;
  map.Insert(0, "keeps a block in use");
  map.Insert(40, "old");
  map.Erase(40);
  map.Insert(72, "of the same block's memory");
  EXPECT_EQ(map.Find(40), nullptr);
  EXPECT_EQ(map.Find(73), nullptr);
  EXPECT_EQ(*map.Find(72), "of the same block's memory");
  EXPECT_DEATH(map.Insert(72, "again"), "a number that is in use");
}

}  // namespace
}  // namespace thresher::broker
