#include "common/log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

namespace thresher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    char pattern[] = "/tmp/thresher-log-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    options_.process = "tester";
    options_.file = folder_ / "logs" / "tester.log";
    options_.stderr_level = LogLevel::kError;
  }
  ~LogTest() override {
    LogOptions plain;
    plain.process = "after";
    EXPECT_TRUE(InitLog(plain).ok());
    std::filesystem::remove_all(folder_);
  }
  static std::string Read(const std::filesystem::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path folder_;
  LogOptions options_;
};

TEST_F(LogTest, LinesCarryLevelProcessAndText) {
  ASSERT_TRUE(InitLog(options_).ok());
  LogInfo("step {} of %s");  // no format language: braces and percent signs are text
  LogDebug("below the level of the file");
  FlushLog();
  std::string text = Read(options_.file);
  EXPECT_THAT(text, HasSubstr(" I tester ["));
  EXPECT_THAT(text, HasSubstr("] step {} of %s\n"));
  EXPECT_THAT(text, Not(HasSubstr("below")));
}

TEST_F(LogTest, ControlCharactersAreVisible) {
  EXPECT_EQ(Visible("a\x1b[2Jb\n\t\r\x7f"), "a\\x1b[2Jb\\n\\t\\r\\x7f");
  EXPECT_EQ(Visible("gr\xc3\xbc\xc3\x9f \xf0\x9f\x8c\xbe"), "gr\xc3\xbc\xc3\x9f \xf0\x9f\x8c\xbe");
  EXPECT_EQ(Visible("\xc2\x9b"), "\\xc2\\x9b");           // C1: a terminal's CSI
  EXPECT_EQ(Visible("\xe2\x80\xae"), "\\xe2\\x80\\xae");  // right-to-left override
  EXPECT_EQ(Visible("\xff\xc0\xaf\xe2\x82"),
            "\\xff\\xc0\\xaf\\xe2\\x82");                 // not UTF-8, overlong, cut
  EXPECT_EQ(Visible("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  ASSERT_TRUE(InitLog(options_).ok());
  LogWarning("model wrote: \x1b]0;title\x07 and\nI tester [1] a forged line");
  std::string text = Read(options_.file);
  EXPECT_THAT(text, HasSubstr("\\x1b]0;title\\x07 and\\nI tester"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST_F(LogTest, FilesRotateAndAreBounded) {
  options_.max_file_bytes = 2000;
  options_.max_files = 2;
  ASSERT_TRUE(InitLog(options_).ok());
  for (int i = 0; i < 300; ++i) LogInfo("a line that fills the file, number " + std::to_string(i));
  FlushLog();
  std::uintmax_t total = 0;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options_.file.parent_path())) {
    total += entry.file_size();
    ++files;
  }
  EXPECT_EQ(files, 3);
  EXPECT_LE(total, 3 * 2200u);
  EXPECT_THAT(Read(options_.file), HasSubstr("number 299"));
}

TEST_F(LogTest, FlightRecordKeepsTheLastLinesOfEveryLevel) {
  options_.level = LogLevel::kError;
  ASSERT_TRUE(InitLog(options_).ok());
  for (int i = 0; i < 500; ++i) LogDebug("event " + std::to_string(i));
  std::vector<std::string> lines = FlightRecord();
  ASSERT_EQ(lines.size(), kFlightRecordLines);
  EXPECT_THAT(lines.front(), HasSubstr("event 300"));
  EXPECT_THAT(lines.back(), HasSubstr("event 499"));
}

TEST_F(LogTest, FailedCheckWritesTheFlightRecordIntoTheFile) {
  EXPECT_DEATH(
      {
        (void)InitLog(options_).ok();
        LogDebug("the last thing that happened");
        THRESHER_CHECK(1 + 1 == 3, "arithmetic");
      },
      "check failed: 1 \\+ 1 == 3: arithmetic");
  std::string text = Read(options_.file);
  EXPECT_THAT(text, HasSubstr("check failed"));
  EXPECT_THAT(text, HasSubstr("the last thing that happened"));
}

TEST_F(LogTest, FileThatCannotBeOpenedIsAnErrorAndTheLogStays) {
  ASSERT_TRUE(InitLog(options_).ok());
  LogOptions bad = options_;
  bad.file = "/proc/no/such/file.log";
  EXPECT_EQ(InitLog(bad).code(), StatusCode::kUnavailable);
  LogInfo("still here");
  FlushLog();
  EXPECT_THAT(Read(options_.file), HasSubstr("still here"));
}

TEST_F(LogTest, ManyThreadsLogWholeLines) {
  ASSERT_TRUE(InitLog(options_).ok());
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 200; ++i) LogInfo("0123456789012345678901234567890123456789");
      });
    }
    LogOptions other = options_;
    other.file = folder_ / "other.log";
    ASSERT_TRUE(InitLog(other).ok());  // the log may be replaced meanwhile
  }
  FlushLog();
  std::string text = Read(options_.file) + Read(folder_ / "other.log");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 800);
}

TEST(LogLevelTest, NamesRoundTrip) {
  for (LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    EXPECT_EQ(ParseLogLevel(LogLevelName(level)).value(), level);
  }
  EXPECT_EQ(ParseLogLevel("loud").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thresher
