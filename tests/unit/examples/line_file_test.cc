#include "common/examples/line_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/hash.h"
#include "tests/unit/examples/support.h"

namespace thresher::examples {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> LinesOf(const LineFile& file, std::vector<LineAt>* places = nullptr) {
  std::vector<std::string> lines;
  const auto read = file.ReadThrough([&](const LineAt& at, std::string_view line) {
    lines.emplace_back(line);
    if (places != nullptr) places->push_back(at);
    return Status::Ok();
  });
  EXPECT_TRUE(read.ok()) << read.status().ToString();
  return lines;
}

TEST(LineFileTest, SkipsBlankLinesAndKnowsNumbers) {
  const Folder folder;
  const auto file = LineFile::Open(folder.Write("a", "one\n\n  \t\r\ntwo\r\nthree")).value();
  std::vector<LineAt> places;
  EXPECT_THAT(LinesOf(file, &places), ElementsAre("one", "two", "three"));
  EXPECT_EQ(places[0].number, 1u);
  EXPECT_EQ(places[1].number, 4u);
  EXPECT_EQ(places[2].number, 5u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(file.Read(places[i]).value(), (std::vector{"one", "two", "three"})[i]);
  }
}

TEST(LineFileTest, LinesMayLieAcrossPiecesOfReading) {
  const Folder folder;
  std::vector<std::string> expected;
  std::string text;
  for (int i = 0; i < 7; ++i) {
    expected.push_back(std::string(300000 + 77777 * static_cast<std::size_t>(i), char('a' + i)));
    text += expected.back() + "\n";
  }
  const auto file = LineFile::Open(folder.Write("a", text)).value();
  std::vector<LineAt> places;
  EXPECT_EQ(LinesOf(file, &places), expected);
  for (std::size_t i = 0; i < places.size(); ++i)
    EXPECT_EQ(file.Read(places[i]).value(), expected[i]);
  EXPECT_EQ(file.ReadThrough([](const LineAt&, std::string_view) { return Status::Ok(); }).value(),
            HashText128(text));
}

TEST(LineFileTest, NamesALineThatChanged) {
  const Folder folder;
  const std::string path = folder.Write("a", "one\ntwo\n");
  const auto file = LineFile::Open(path).value();
  std::vector<LineAt> places;
  LinesOf(file, &places);
  folder.Write("a", "one\ntwx\n");
  EXPECT_EQ(file.Read(places[0]).value(), "one");
  const auto changed = file.Read(places[1]);
  EXPECT_EQ(changed.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(changed.status().message(), path + ": line 2: changed since the file was opened");
  folder.Write("a", "one\n");
  EXPECT_EQ(file.Read(places[1]).status().code(), StatusCode::kDataLoss);
}

TEST(LineFileTest, RefusesALineWithoutEnd) {
  const Folder folder;
  const std::string path = folder.Write("a", "x\n" + std::string(kMostLineBytes + 1, 'y'));
  const auto read = LineFile::Open(path)->ReadThrough(
      [](const LineAt&, std::string_view) { return Status::Ok(); });
  EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(read.status().message(), HasSubstr(path + ": line 2: longer than 16777216 bytes"));
}

TEST(LineFileTest, NamesAFileThatIsNotThere) {
  EXPECT_THAT(LineFile::Open("/no/such.jsonl").status().message(), HasSubstr("/no/such.jsonl"));
}

}  // namespace
}  // namespace thresher::examples
