#include "broker/run_files.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/data/files.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

std::size_t Lines(const TemporaryFolder& folder) {
  const std::string text = ReadFile(folder.path() / "events.jsonl").value();
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

TEST(EventLog, AFloodOfOneKindIsCountedAndNotWritten) {
  TemporaryFolder folder;
  ManualClock clock;
  auto log = EventLog::Open(folder.path(), clock);
  ASSERT_TRUE(log.ok());
  for (int i = 0; i < 1000; ++i) log->Add(EventLevel::kWarning, "refused", "again");
  EXPECT_EQ(Lines(folder), EventLog::kMostOfAKind);
  EXPECT_EQ(log->warnings(), 1000u);
  EXPECT_EQ(log->by_kind().at("refused"), 1000u);
  log->Add(EventLevel::kWarning, "another", "kind");
  for (int i = 0; i < 300; ++i) log->Add(EventLevel::kAlarm, "alarm", "always");
  EXPECT_EQ(Lines(folder), EventLog::kMostOfAKind + 301);
  clock.Advance(std::chrono::minutes(1));
  log->Add(EventLevel::kWarning, "refused", "again");
  EXPECT_EQ(Lines(folder), EventLog::kMostOfAKind + 302);
  const std::string text = ReadFile(folder.path() / "events.jsonl").value();
  EXPECT_NE(text.find("again (and 800 that were not written)"), std::string::npos);
}

}  // namespace
}  // namespace thresher::broker
