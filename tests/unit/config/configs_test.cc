// The shipped configurations and their page.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/config/schema.h"
#include "tests/support/source_folder.h"

namespace thresher {
namespace {

std::filesystem::path ConfigsFolder() { return SourceFolder() / "configs"; }

std::string Read(const std::filesystem::path& file) {
  std::ifstream in(file);
  EXPECT_TRUE(in.is_open()) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string Cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, "\\");
  return text;
}

// The lines between the marks of configs/README.md.
std::string KeyTable() {
  std::string out = "| key | type | allowed | default | meaning |\n|---|---|---|---|---|\n";
  for (const KeyDoc& key : DocumentedKeys()) {
    std::string value = key.default_value.empty() ? "(empty)" : "`" + key.default_value + "`";
    out += "| `" + key.path + "` | " + key.type + " | " + Cell(key.allowed) + " | " + value +
           " | " + Cell(key.doc) + " |\n";
  }
  return out;
}

TEST(ConfigsTest, KeyTableOfThePageIsCompleteAndCurrent) {
  constexpr std::string_view kBegin = "<!-- keys: begin -->\n", kEnd = "<!-- keys: end -->";
  std::string page = Read(ConfigsFolder() / "README.md");
  std::size_t begin = page.find(kBegin), end = page.find(kEnd);
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  begin += kBegin.size();
  EXPECT_EQ(page.substr(begin, end - begin), KeyTable())
      << "put the second text between the marks of configs/README.md";
}

TEST(ConfigsTest, WhatMayChangeOnAResumeIsListed) {
  constexpr std::string_view kBegin = "<!-- free keys: begin -->\n",
                             kEnd = "<!-- free keys: end -->";
  const std::string page = Read(ConfigsFolder() / "README.md");
  const std::size_t begin = page.find(kBegin) + kBegin.size(), end = page.find(kEnd);
  ASSERT_NE(end, std::string::npos);
  std::string keys;
  for (const config_internal::KeySpec& key : config_internal::Schema()) {
    if (key.affects_results) continue;
    keys += (keys.empty() ? "`" : ", `") + key.path + "`";
  }
  EXPECT_EQ(page.substr(begin, end - begin), keys + "\n")
      << "put the second text between the marks of configs/README.md";
}

TEST(ConfigsTest, EveryShippedFileLoadsAndHasItsLineOnThePage) {
  std::string page = Read(ConfigsFolder() / "README.md");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ConfigsFolder())) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    EXPECT_NO_THROW(LoadConfig(entry.path(), {})) << entry.path();
    EXPECT_NE(page.find("`" + entry.path().filename().string() + "`"), std::string::npos)
        << entry.path();
  }
  EXPECT_GE(files, 1);
}

TEST(ConfigsTest, TheQuickstartOnGpusComputesTheQuickstart) {
  const Config cpu = LoadConfig(ConfigsFolder() / "quickstart.yaml", {});
  const Config gpu = LoadConfig(ConfigsFolder() / "quickstart-gpu.yaml", {});
  EXPECT_EQ(ResultKeysText(cpu), ResultKeysText(gpu));
  EXPECT_NE(gpu.actors.device, "cpu");
  EXPECT_NE(gpu.learner.device, "cpu");
}

TEST(ConfigsTest, QuickstartShowsWhatItPromises) {
  Config config = LoadConfig(ConfigsFolder() / "quickstart.yaml", {});
  EXPECT_GE(config.eval.items, 400);
  EXPECT_GE(config.eval.samples, 8);  // pass@8
  EXPECT_EQ(config.actors.count, 2);
  EXPECT_EQ(config.learner.ranks, 1);
  Plan plan(config);
  EXPECT_EQ(plan.evals().front().label, "supervised");
  EXPECT_EQ(plan.evals().back().label, "final");
  // Every published version can be replayed.
  std::uint32_t published = 0;
  for (std::uint32_t v = 0; v <= plan.total_steps(); ++v) published += plan.IsPublished(v);
  EXPECT_GE(static_cast<std::uint32_t>(config.weights.retain), published);
}

}  // namespace
}  // namespace thresher
