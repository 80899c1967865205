#include "common/examples/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"
#include "tests/unit/examples/support.h"

namespace thresher::examples {
namespace {

using ::testing::HasSubstr;

std::string JsonOf(const std::string& prompt, const std::string& completion) {
  return R"({"prompt": ")" + prompt + R"(", "completion": ")" + completion + "\"}\n";
}

// Lines "<name>0" to "<name>N-1".
std::string FileOf(const std::string& name, int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += JsonOf(name, std::to_string(i));
  return text;
}

class SourceTest : public ::testing::Test {
 protected:
  Config Make(const std::vector<std::string>& more) {
    std::vector<std::string> settings = {"supervised.source=jsonl"};
    settings.insert(settings.end(), more.begin(), more.end());
    return ParseConfig("", "test", settings);
  }
  ModelSide Side(std::size_t context = 64) const {
    return {*tokenizer_, model::Tokenizer::kBos, model::Tokenizer::kEos, context};
  }
  Result<std::unique_ptr<SupervisedSource>> Open(const std::vector<std::string>& more) {
    return OpenSource(Make(more), Side());
  }
  std::string TextAt(const SupervisedSource& source, std::uint64_t item) {
    auto example = source.At(item);
    return example.ok() ? tokenizer_->Decode(example->tokens) : example.status().ToString();
  }
  // A run folder with these trajectories, in this order.
  std::string RunOf(const std::string& name, const std::vector<Trajectory>& trajectories,
                    const model::Tokenizer& tokenizer) {
    const auto run = folder_.path() / name;
    std::filesystem::create_directories(run / "model");
    EXPECT_TRUE(WriteFileAtomic(run / "model" / "tokenizer.json", tokenizer.ToJson()).ok());
    auto store = TrajectoryStoreWriter::Open(run / "trajectories", {}).value();
    for (const Trajectory& t : trajectories) {
      EXPECT_TRUE(store->AppendBlock({{t.id, t.ContentHash(), wire::EncodeTrajectory(t)}}).ok());
    }
    EXPECT_TRUE(store->Flush(false).ok());
    return run.string();
  }
  Trajectory Sampled(std::uint64_t item, std::uint32_t sample, double reward) const {
    Trajectory t;
    t.id = {Stream::kTrain, 0, item, sample};
    t.group_size = 4;
    t.tokens = tokenizer_->Encode("q" + std::to_string(item) + "=a" + std::to_string(sample));
    const auto size = static_cast<std::uint32_t>(t.tokens.size());
    t.segments = {{0, 2, Role::kPrompt, false}, {2, size, Role::kPolicy, true}};
    t.logprobs.assign(size - 2, -0.5f);
    t.instance_hash = HashText128("instance " + std::to_string(item));
    t.pinned = {0, static_cast<std::uint32_t>(10 * item)};
    t.outcome.score = t.outcome.reward = reward;
    t.finish = FinishReason::kStop;
    return t;
  }

  Folder folder_;
  std::unique_ptr<model::Tokenizer> tokenizer_ = Letters();
};

TEST_F(SourceTest, EveryEpochHasEveryLineOnceInAnotherOrder) {
  const std::string file = folder_.Write("a.jsonl", FileOf("a", 37));
  const auto source = *Open({"supervised.file=" + file});
  std::vector<std::vector<std::string>> epochs(3);
  for (std::uint64_t n = 0; n < 3 * 37; ++n) epochs[n / 37].push_back(TextAt(*source, n));
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& epoch : epochs) std::sort(epoch.begin(), epoch.end());
  EXPECT_EQ(epochs[0], epochs[1]);
  EXPECT_EQ(epochs[0], epochs[2]);
  EXPECT_EQ(std::set(epochs[0].begin(), epochs[0].end()).size(), 37u);
}

TEST_F(SourceTest, AnItemIsAPureFunction) {
  const std::string file = folder_.Write("a.jsonl", FileOf("a", 50));
  const auto a = *Open({"supervised.file=" + file});
  const auto b = *Open({"supervised.file=" + file});
  const auto other = *Open({"supervised.file=" + file, "run.seed=2"});
  int different = 0;
  for (std::uint64_t n : {99u, 3u, 42u, 3u, 1000000u, 7u}) {
    EXPECT_EQ(a->At(n)->tokens, b->At(n)->tokens);
    EXPECT_EQ(a->At(n)->Record({Stream::kSupervised, 0, n, 0}, "t").ContentHash(),
              b->At(n)->Record({Stream::kSupervised, 0, n, 0}, "t").ContentHash());
    different += a->At(n)->tokens != other->At(n)->tokens;
  }
  EXPECT_GT(different, 0);
}

TEST_F(SourceTest, FilesComeInProportionToTheirWeights) {
  const std::string a = folder_.Write("a.jsonl", FileOf("a", 5));
  const std::string b = folder_.Write("b.jsonl", FileOf("b", 40));
  const auto source = *Open({"supervised.file=" + a + ":3," + b + ":1"});
  std::map<char, int> count;
  for (std::uint64_t n = 0; n < 400; ++n) ++count[TextAt(*source, n)[0]];
  EXPECT_EQ(count['a'], 300);
  EXPECT_EQ(count['b'], 100);
}

TEST_F(SourceTest, HoldsOutAShareThatIsNeverTrainedOn) {
  const std::string file = folder_.Write("a.jsonl", FileOf("a", 400));
  const auto source =
      *Open({"supervised.file=" + file, "supervised.eval_share=0.25", "supervised.eval_every=5"});
  std::set<std::string> trained, held;
  for (std::uint64_t n = 0; n < 1000; ++n) trained.insert(TextAt(*source, n));
  for (std::uint64_t n = 0; n < source->held_out(); ++n) {
    held.insert(tokenizer_->Decode(source->HeldOut(n)->tokens));
  }
  EXPECT_EQ(trained.size() + held.size(), 400u);
  EXPECT_EQ(held.size(), source->counts().held_out);
  EXPECT_NEAR(static_cast<double>(held.size()), 100, 40);
  for (const std::string& text : held) EXPECT_FALSE(trained.contains(text)) << text;
  EXPECT_EQ(source->HeldOut(source->held_out()).status().code(), StatusCode::kOutOfRange);
}

TEST_F(SourceTest, EqualLinesAreHeldOutTogether) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += FileOf("a", 20);
  const std::string file = folder_.Write("a.jsonl", text);
  const auto source =
      *Open({"supervised.file=" + file, "supervised.eval_share=0.3", "supervised.eval_every=5"});
  EXPECT_EQ(source->held_out() % 100, 0u);
  EXPECT_GT(source->held_out(), 0u);
}

TEST_F(SourceTest, MeasuresAFileApart) {
  const std::string a = folder_.Write("a.jsonl", FileOf("a", 5));
  const std::string b = folder_.Write("b.jsonl", FileOf("b", 3));
  const auto source =
      *Open({"supervised.file=" + a, "supervised.eval_file=" + b, "supervised.eval_every=5"});
  ASSERT_EQ(source->held_out(), 3u);
  EXPECT_EQ(tokenizer_->Decode(source->HeldOut(2)->tokens), "b2");
  ASSERT_EQ(source->hashes().size(), 2u);
  EXPECT_EQ(source->hashes()[0].key, "supervised.file");
  EXPECT_EQ(source->hashes()[1].key, "supervised.eval_file");
  EXPECT_EQ(source->hashes()[1].hash, HashText128(FileOf("b", 3)));
}

TEST_F(SourceTest, CountsWhatIsTooLong) {
  const std::string file =
      folder_.Write("a.jsonl", JsonOf("q", "a") + JsonOf("q", std::string(70, 'b')) +
                                   JsonOf(std::string(80, 'q'), "c"));
  const std::string set = "supervised.file=" + file;
  const auto refused = Open({set});
  EXPECT_THAT(refused.status().message(),
              HasSubstr("supervised.file: " + file + ": line 2: 73 tokens; allowed: at most"));
  const auto cut = *Open({set, "supervised.over_long=truncate"});
  EXPECT_EQ(cut->counts().examples, 2u);
  EXPECT_EQ(cut->counts().truncated, 1u);
  EXPECT_EQ(cut->counts().dropped, 1u);
  const auto dropped = *Open({set, "supervised.over_long=drop"});
  EXPECT_EQ(dropped->counts().examples, 1u);
  EXPECT_EQ(dropped->counts().dropped, 2u);
  EXPECT_EQ(TextAt(*dropped, 12345), "qa");
}

TEST_F(SourceTest, NamesFileLineAndField) {
  const std::string file = folder_.Write(
      "a.jsonl", JsonOf("q", "a") + "\n" + R"({"messages": [{"role": "x", "content": "a"}]})");
  const auto refused = Open({"supervised.file=" + file});
  EXPECT_EQ(refused.status().message(),
            "supervised.file: " + file +
                ": line 3: messages[0].role: found string \"x\"; allowed: system, user, assistant, "
                "tool");
  EXPECT_THAT(Open({"supervised.file=" + folder_.Write("e", "\n\n")}).status().message(),
              HasSubstr("has no example"));
  EXPECT_THAT(Open({"supervised.file=/none.jsonl"}).status().message(),
              HasSubstr("supervised.file: /none.jsonl"));
}

TEST_F(SourceTest, TellsWhatIsNotTheRunsDataAnyMore) {
  const std::vector<DataHash> made = {{"supervised.file", "a", 1, HashText128("a")},
                                      {"supervised.eval_file", "b", 1, HashText128("b")}};
  EXPECT_TRUE(RequireSameData(made, made).ok());
  auto moved = made;
  moved[0].path = "elsewhere/a";
  EXPECT_TRUE(RequireSameData(made, moved).ok());
  for (const auto& change : std::vector<std::function<void(std::vector<DataHash>&)>>{
           [](auto& d) { d[0].hash.low ^= 1; }, [](auto& d) { d[0].weight = 2; },
           [](auto& d) { d.pop_back(); },
           [](auto& d) {
             d.push_back({"supervised.file", "c", 1, {}});
           },
           [](auto& d) { std::swap(d[0], d[1]); }}) {
    auto now = made;
    change(now);
    const Status status = RequireSameData(made, now);
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr("supervised."));
  }
}

TEST_F(SourceTest, LearnsVerifiedTrajectoriesInTheOrderOfTheirIds) {
  std::vector<Trajectory> all;
  for (std::uint64_t item = 0; item < 6; ++item) {
    for (std::uint32_t sample = 0; sample < 4; ++sample) {
      all.push_back(Sampled(item, sample, sample % 2 ? 1 : 0));
    }
  }
  auto held = all[5];
  held.id.stream = Stream::kEval;
  auto cut = all[7];
  cut.id.sample = 9;
  cut.finish = FinishReason::kLength;
  all.insert(all.end(), {held, cut});
  auto shuffled = all;
  std::reverse(shuffled.begin(), shuffled.end());
  shuffled.push_back(all[1]);  // stored twice
  const std::string a = RunOf("a", all, *tokenizer_), b = RunOf("b", shuffled, *tokenizer_);
  const auto open = [&](const std::string& run, const std::vector<std::string>& more) {
    std::vector<std::string> settings = {"supervised.source=trajectories", "supervised.run=" + run};
    settings.insert(settings.end(), more.begin(), more.end());
    auto source = OpenSource(ParseConfig("", "test", settings), Side());
    EXPECT_TRUE(source.ok()) << source.status().ToString();
    return *std::move(source);
  };
  const auto first = open(a, {}), second = open(b, {});
  EXPECT_EQ(first->counts().examples, 12u);
  EXPECT_EQ(first->hashes()[0].hash, second->hashes()[0].hash);
  std::set<std::string> texts;
  for (std::uint64_t n = 0; n < 12; ++n) {
    const auto example = first->At(n).value();
    EXPECT_EQ(example.tokens, second->At(n)->tokens);
    EXPECT_EQ(example.outcome.reward, 1.0);
    EXPECT_EQ(example.segments[1].begin, 2u);
    EXPECT_TRUE(example.Record({Stream::kSupervised, 0, n, 0}, "t").Validate().ok());
    texts.insert(tokenizer_->Decode(example.tokens));
  }
  EXPECT_EQ(texts.size(), 12u);
  EXPECT_TRUE(texts.contains("q0=a1"));
  EXPECT_FALSE(texts.contains("q0=a0"));
  EXPECT_EQ(open(a, {"supervised.min_reward=0"})->counts().examples, 24u);
  EXPECT_EQ(open(a, {"supervised.from_step=20", "supervised.to_step=30"})->counts().examples, 4u);
  const auto apart = open(a, {"supervised.eval_share=0.5", "supervised.eval_every=1"});
  EXPECT_EQ(apart->held_out() % 2, 0u);  // both of an instance
  EXPECT_EQ(apart->held_out() + apart->counts().examples, 12u);
}

TEST_F(SourceTest, RefusesTrajectoriesOfAnotherTokenizer) {
  const auto other = model::Tokenizer::FromAlphabet("abc").value();
  const std::string run = RunOf("a", {Sampled(0, 0, 1)}, *other);
  const auto config =
      ParseConfig("", "test", {"supervised.source=trajectories", "supervised.run=" + run});
  EXPECT_THAT(OpenSource(config, Side()).status().message(),
              HasSubstr("another tokenizer than the run's"));
}

}  // namespace
}  // namespace thresher::examples
