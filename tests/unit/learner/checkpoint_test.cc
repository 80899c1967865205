#include "learner/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/random.h"
#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/model/weights.h"
#include "tests/support/moved_files.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher::learner {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

Config SmallRun(const std::string& dtype, const std::vector<std::string>& more) {
  std::vector<std::string> overrides = {
      "model.layers=1",   "model.width=16",     "model.heads=2",       "model.kv_heads=1",
      "model.head_dim=8", "model.ffn_width=24", "model.dtype=" + dtype};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return ParseConfig("", "test", overrides);
}

std::vector<float> Random(std::uint64_t item, std::size_t count) {
  RandomSequence random(8, TrajectoryId{Stream::kTrain, 0, item, 0}, RandomPurpose::kBootstrap);
  std::vector<float> out(count);
  for (float& v : out) v = static_cast<float>(random.NextUniform() - 0.5);
  return out;
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override { run_ = NewRun("run"); }

  model::RunContext NewRun(const fs::path& name, const std::string& dtype = "float32",
                           const std::vector<std::string>& more = {}) {
    auto run =
        model::CreateRun(folder_.path() / name, SmallRun(dtype, more), " *+,-/0123456789:;=");
    EXPECT_TRUE(run.ok()) << run.status().ToString();
    return std::move(run).value();
  }

  TrainState State(std::uint32_t step) const {
    const std::size_t count = model::ParameterCount(run_.model);
    TrainState state;
    state.lineage = 2;
    state.step = step;
    state.chain = {step + 100, 7};
    state.weights = Random(3 * step, count);
    state.optimizer.steps = step + 1000;
    state.optimizer.first_moment = Random(3 * step + 1, count);
    state.optimizer.second_moment = Random(3 * step + 2, count);
    return state;
  }

  TrainState WithCritic(TrainState state) const {
    const auto kind = CriticKindOf(run_.config.objective);
    const std::size_t count = CriticParameterCount(kind.value(), run_.model);
    state.critic.weights = Random(3 * state.step + 50, count);
    state.critic.optimizer.steps = state.step + 7;
    state.critic.optimizer.first_moment = Random(3 * state.step + 51, count);
    state.critic.optimizer.second_moment = Random(3 * state.step + 52, count);
    return state;
  }

  // Adapters, of which the weights are merged, and moments of theirs.
  TrainState WithAdapters(TrainState state) const {
    const model::Lora& lora = *run_.trained.lora;
    state.adapters = {lora.BaseOf(state.weights), Random(3 * state.step + 60, lora.count())};
    for (std::size_t i = 0; i < lora.targets().size(); ++i) {
      lora.Merge(i, state.adapters.base, state.adapters.weights, state.weights);
    }
    state.optimizer.first_moment = Random(3 * state.step + 61, lora.count());
    state.optimizer.second_moment = Random(3 * state.step + 62, lora.count());
    return state;
  }

  fs::path Folder(std::uint32_t step) const {
    char name[32];
    std::snprintf(name, sizeof name, "step_%06u", step);
    return run_.folder / "checkpoints" / name;
  }

  void Save(const TrainState& state) {
    auto saved = SaveCheckpoint(run_, state);
    ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  }

  // Flips one bit in the middle of a file.
  static void Damage(const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
    stream.seekg(middle);
    const char byte = static_cast<char>(stream.get() ^ 4);
    stream.seekp(middle);
    stream.put(byte);
    ASSERT_TRUE(stream.good());
  }

  std::vector<std::uint32_t> Present() const {
    std::vector<std::uint32_t> steps;
    for (std::uint32_t step = 0; step < 20; ++step) {
      if (fs::exists(Folder(step))) steps.push_back(step);
    }
    return steps;
  }

  TrainState Load() {
    warnings_.clear();
    auto loaded = LoadNewestCheckpoint(run_, warnings_);
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    if (!loaded.ok() || !loaded->has_value()) return {};
    return **loaded;
  }

  TempFolder folder_;
  model::RunContext run_;
  std::vector<std::string> warnings_;
};

void ExpectEqual(const TrainState& a, const TrainState& b) {
  EXPECT_EQ(a.lineage, b.lineage);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.chain, b.chain);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.optimizer.steps, b.optimizer.steps);
  EXPECT_EQ(a.optimizer.first_moment, b.optimizer.first_moment);
  EXPECT_EQ(a.optimizer.second_moment, b.optimizer.second_moment);
  ASSERT_EQ(a.reference == nullptr, b.reference == nullptr);
  if (a.reference != nullptr) {
    EXPECT_EQ(*a.reference, *b.reference);
  }
  EXPECT_EQ(a.adapters.base, b.adapters.base);
  EXPECT_EQ(a.adapters.weights, b.adapters.weights);
  EXPECT_EQ(a.critic.weights, b.critic.weights);
  EXPECT_EQ(a.critic.optimizer.steps, b.critic.optimizer.steps);
  EXPECT_EQ(a.critic.optimizer.first_moment, b.critic.optimizer.first_moment);
  EXPECT_EQ(a.critic.optimizer.second_moment, b.critic.optimizer.second_moment);
}

TEST_F(CheckpointTest, ThereIsNothingToLoadInANewRun) {
  auto loaded = LoadNewestCheckpoint(run_, warnings_);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_FALSE(loaded->has_value());
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, AdaptersComeBackWithTheirBase) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    run_ = NewRun("adapters-" + dtype, dtype, {"lora.rank=3", "lora.targets=q_proj, up_proj"});
    const TrainState state = WithAdapters(State(3));
    Save(state);
    Save(state);  // again: the same state
    ExpectEqual(Load(), state);
    TrainState other = state;
    other.adapters.weights[5] += 1.0f;
    EXPECT_EQ(SaveCheckpoint(run_, other).status().code(), StatusCode::kAlreadyExists);
  }
}

TEST_F(CheckpointTest, AdaptersOfAnotherRunAreRefusedByKey) {
  run_ = NewRun("adapters", "float32", {"lora.rank=3"});
  Save(WithAdapters(State(3)));
  const auto refused = [&](const std::vector<std::string>& more) {
    model::RunContext other = NewRun(more.empty() ? "none" : more[0], "float32", more);
    other.folder = run_.folder;
    other.identity = run_.identity;
    other.run_id = run_.run_id;
    const auto loaded = LoadNewestCheckpoint(other, warnings_);
    EXPECT_FALSE(loaded.ok());
    return loaded.status().ToString();
  };
  EXPECT_THAT(refused({"lora.rank=4"}), HasSubstr("lora.rank is 3; allowed: 4, the run's"));
  EXPECT_THAT(refused({"lora.rank=3", "lora.targets=q_proj"}), HasSubstr("lora.targets is "));
  EXPECT_THAT(refused({}), HasSubstr("adapters; allowed: none, for the run's lora.rank is 0"));
}

TEST_F(CheckpointTest, AdaptersThatDoNotGiveTheWeightsAreFound) {
  run_ = NewRun("adapters", "float32", {"lora.rank=3"});
  TrainState state = WithAdapters(State(3));
  state.adapters.base[7] += 1.0f;
  Save(state);
  const auto loaded = LoadNewestCheckpoint(run_, warnings_);
  EXPECT_EQ(loaded.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(loaded.status().message(), HasSubstr("trainer/adapter_model.safetensors merged"));
}

TEST_F(CheckpointTest, MomentsOfOtherTrainedPartsAreRefused) {
  Save(State(3));
  model::RunContext other = NewRun("frozen", "float32", {"learner.freeze=model.norm.weight"});
  other.folder = run_.folder;
  other.identity = run_.identity;
  other.run_id = run_.run_id;
  EXPECT_THAT(LoadNewestCheckpoint(other, warnings_).status().message(),
              HasSubstr("tensor first_moment: "));
}

TEST_F(CheckpointTest, SixteenBitWeightsGoOnFromTheirMasters) {
  run_ = NewRun("half", "bfloat16");
  const TrainState state = State(3);
  Save(state);
  ExpectEqual(Load(), state);
  Save(state);  // a step trained again
  // The model of the folder is what actors computed with.
  auto model = model::LoadModelFolder(Folder(3));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->config.dtype, kernels::WeightType::kBf16);
  EXPECT_NE(model->flat, state.weights);
  const auto published = model::EncodeWeights(run_.model, state.weights).value();
  EXPECT_EQ(model->flat, model::DecodeWeights(run_.model, published, "blob").value());
  // Another run that starts from it goes on from the masters.
  EXPECT_EQ(LoadMasters(Folder(3), run_.model).value(), state.weights);
  fs::remove(Folder(3) / "trainer/masters.safetensors");
  EXPECT_FALSE(LoadMasters(Folder(3), run_.model).value().has_value());
}

TEST_F(CheckpointTest, AFullPrecisionRunHasNoMastersBesideItsWeights) {
  Save(State(3));
  EXPECT_FALSE(LoadMasters(Folder(3), run_.model).value().has_value());
}

TEST_F(CheckpointTest, ComesBackBitForBitWithAndWithoutAReference) {
  TrainState plain = State(3);
  Save(plain);
  ExpectEqual(Load(), plain);
  TrainState with_reference = State(4);
  with_reference.reference =
      std::make_shared<const std::vector<float>>(Random(99, with_reference.weights.size()));
  // Values whose text would not come back.
  with_reference.optimizer.second_moment[0] = 1e-45f;
  with_reference.optimizer.first_moment[1] = -0.0f;
  Save(with_reference);
  const TrainState loaded = Load();
  ExpectEqual(loaded, with_reference);
  EXPECT_TRUE(std::signbit(loaded.optimizer.first_moment[1]));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, ACriticComesBackBitForBitAndIsNoPartOfTheModel) {
  for (const char* preset : {"ppo", "vtrace_impala"}) {
    run_ = NewRun(preset, "float32", {std::string("objective.preset=") + preset});
    const TrainState state = WithCritic(State(4));
    Save(state);
    Save(state);  // a step trained again
    ExpectEqual(Load(), state);
    EXPECT_EQ(model::LoadModelFolder(Folder(4)).value().flat, state.weights);
    TrainState other = state;
    other.critic.weights[3] += 1e-3f;
    EXPECT_EQ(SaveCheckpoint(run_, other).status().code(), StatusCode::kAlreadyExists);
    other = state;
    other.critic.optimizer.second_moment[3] += 1e-3f;
    EXPECT_EQ(SaveCheckpoint(run_, other).status().code(), StatusCode::kAlreadyExists);
    other = state;
    ++other.critic.optimizer.steps;
    EXPECT_EQ(SaveCheckpoint(run_, other).status().code(), StatusCode::kAlreadyExists);
  }
}

TEST_F(CheckpointTest, ADamagedCriticIsPassedOverAndOneOfAnotherSizeRefused) {
  run_ = NewRun("ppo", "float32", {"objective.preset=ppo"});
  Save(WithCritic(State(5)));
  Save(WithCritic(State(6)));
  Damage(Folder(6) / "trainer/critic.safetensors");
  ExpectEqual(Load(), WithCritic(State(5)));
  EXPECT_EQ(warnings_.size(), 1u);
  TrainState large = WithCritic(State(7));
  large.critic.weights.push_back(0);
  Save(large);
  warnings_.clear();
  auto loaded = LoadNewestCheckpoint(run_, warnings_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(loaded.status().message(), HasSubstr("tensor weights"));
}

TEST_F(CheckpointTest, IsAModelFolder) {
  const TrainState state = State(3);
  Save(state);
  auto model = model::LoadModelFolder(Folder(3));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->flat, state.weights);
  EXPECT_EQ(model->tokenizer->Hash(), run_.tokenizer->Hash());
}

TEST_F(CheckpointTest, SaysWhenItIsHalfWritten) {
  int calls = 0;
  const auto look = [&] {
    ++calls;
    EXPECT_FALSE(fs::exists(Folder(3))) << "it has no name yet";
    const auto names = NamesIn(run_.folder / "checkpoints");
    ASSERT_EQ(names.size(), 1u);
    const fs::path temporary = run_.folder / "checkpoints" / names[0];
    EXPECT_TRUE(fs::exists(temporary / "model.safetensors"));
    EXPECT_FALSE(fs::exists(temporary / "trainer/optimizer.safetensors"));
  };
  ASSERT_TRUE(SaveCheckpoint(run_, State(3), look).ok());
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(SaveCheckpoint(run_, State(3), look).ok());
  EXPECT_EQ(calls, 1) << "it is there already";
}

TEST_F(CheckpointTest, ReturnsTheHashOfWhatIsOnDisk) {
  auto saved = SaveCheckpoint(run_, State(3));
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(saved->folder, "checkpoints/step_000003");
  auto whole = VerifyFolder(run_.folder / saved->folder);
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  EXPECT_EQ(saved->manifest_hash, whole->hash);
}

TEST_F(CheckpointTest, ADamagedNewestOneIsPassedOver) {
  for (const char* file : {"model.safetensors", "trainer/optimizer.safetensors",
                           "trainer/state.json", kManifestName}) {
    Save(State(5));
    Save(State(6));
    Damage(Folder(6) / file);
    ExpectEqual(Load(), State(5));
    ASSERT_EQ(warnings_.size(), 1u) << file;
    EXPECT_THAT(warnings_[0], HasSubstr("step_000006"));
    fs::remove_all(Folder(6));
  }
  // One that was never finished has no manifest; a temporary of a killed process is not looked at.
  fs::create_directories(Folder(7));
  fs::create_directories(run_.folder / "checkpoints" / "step_000008.tmp-12ab");
  ExpectEqual(Load(), State(5));
  EXPECT_EQ(warnings_.size(), 1u);
}

// Every file, with a bit flipped anywhere in it, or a byte less: the checkpoint is passed over, the
// one before counts, and the warning names the file.
TEST_F(CheckpointTest, OneWithADamagedByteAnywhereIsPassedOver) {
  Save(State(5));
  TrainState with_reference = State(6);
  with_reference.reference =
      std::make_shared<const std::vector<float>>(Random(99, with_reference.weights.size()));
  Save(with_reference);
  RandomSequence random(9, TrajectoryId{Stream::kTrain, 0, 0, 0}, RandomPurpose::kBootstrap);
  const auto draw = [&](std::size_t below) {
    return static_cast<std::size_t>(random.NextUniform() * static_cast<double>(below));
  };
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(Folder(6))) {
    if (!entry.is_regular_file()) continue;
    ++files;
    const std::string whole = ReadFile(entry.path()).value();
    for (int i = 0; i < 24; ++i) {
      std::string damaged = whole;
      // Both ends too: lengths stand there, and padding.
      const std::size_t at = i == 0 ? 0 : i == 1 ? whole.size() - 1 : draw(whole.size());
      const auto bit = static_cast<char>(1 << draw(8));
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      if (i == 2) damaged = whole.substr(0, whole.size() - 1);
      ASSERT_TRUE(WriteFileAtomic(entry.path(), damaged).ok());
      ASSERT_EQ(Load().step, 5u) << entry.path() << " at " << at;
      ASSERT_EQ(warnings_.size(), 1u) << entry.path() << " at " << at;
      EXPECT_THAT(warnings_[0], HasSubstr("step_000006")) << entry.path() << " at " << at;
      if (entry.path().filename() != kManifestName) {
        EXPECT_THAT(warnings_[0], HasSubstr(entry.path().filename().string())) << at;
      }
    }
    ASSERT_TRUE(WriteFileAtomic(entry.path(), whole).ok());
  }
  EXPECT_EQ(files, 9) << "model, tokenizer, trainer's state, manifest";
  ExpectEqual(Load(), with_reference);
}

// Whole by its manifest, of this run by its state: the file and what differs are named.
TEST_F(CheckpointTest, OneOfAnotherArchitectureIsRefusedByName) {
  const TrainState state = State(6);
  Save(state);
  Config wider = SmallRun("float32", {});
  wider.model.ffn_width = 32;
  auto other = model::CreateRun(folder_.path() / "wider", wider, " *+,-/0123456789:;=");
  ASSERT_TRUE(other.ok());
  TrainState foreign = state;
  const std::size_t count = model::ParameterCount(other->model);
  foreign.weights = foreign.optimizer.first_moment = foreign.optimizer.second_moment =
      Random(1, count);
  other->run_id = run_.run_id;
  other->identity = run_.identity;
  const fs::path mine = Folder(6);
  fs::remove_all(mine);
  ASSERT_TRUE(SaveCheckpoint(*other, foreign).ok());
  fs::rename(other->folder / "checkpoints" / "step_000006", mine);
  auto loaded = LoadNewestCheckpoint(run_, warnings_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.status().message(), HasSubstr("model.safetensors"));
  EXPECT_THAT(loaded.status().message(), HasSubstr("mlp"));
}

TEST_F(CheckpointTest, ADamagedOneIsReplacedWhenItsStepIsReachedAgain) {
  Save(State(6));
  Damage(Folder(6) / "model.safetensors");
  Save(State(6));
  ExpectEqual(Load(), State(6));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, ARetrainedStepMustReproduceItsCheckpoint) {
  auto first = SaveCheckpoint(run_, State(6));
  ASSERT_TRUE(first.ok());
  auto again = SaveCheckpoint(run_, State(6));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->manifest_hash, first->manifest_hash);

  std::vector<TrainState> others(6, State(6));
  others[0].weights[5] += 1e-3f;
  others[1].chain.low ^= 1;
  others[2].optimizer.first_moment[5] += 1e-3f;
  others[3].optimizer.second_moment[5] += 1e-3f;
  others[4].optimizer.steps += 1;
  others[5].reference =
      std::make_shared<const std::vector<float>>(Random(1, others[5].weights.size()));
  for (std::size_t i = 0; i < others.size(); ++i) {
    auto other = SaveCheckpoint(run_, others[i]);
    ASSERT_FALSE(other.ok()) << i;
    EXPECT_EQ(other.status().code(), StatusCode::kAlreadyExists) << other.status().ToString();
  }
  ExpectEqual(Load(), State(6));
}

TEST_F(CheckpointTest, AnotherRunsCheckpointIsRefused) {
  Save(State(6));
  model::RunContext other = NewRun("other");
  ASSERT_NE(other.run_id, run_.run_id);
  fs::rename(run_.folder / "checkpoints", other.folder / "checkpoints");
  auto loaded = LoadNewestCheckpoint(other, warnings_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(loaded.status().message(), HasSubstr(run_.run_id.ToString()));
}

TEST_F(CheckpointTest, AnotherRunIdentityIsRefused) {
  Save(State(6));
  run_.identity.kernel_set = "another";
  auto loaded = LoadNewestCheckpoint(run_, warnings_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(loaded.status().message(), HasSubstr("identity"));
}

TEST_F(CheckpointTest, WholeByItsManifestButUnreadableIsDataLoss) {
  std::uint32_t step = 1;
  for (const char* text :
       {"{", "[]", R"({"format": "one"})", R"({"format": 1, "run_id": 5})", R"({"format": 2})"}) {
    auto folder = FolderWriter::Open(Folder(++step));
    ASSERT_TRUE(folder.ok());
    ASSERT_TRUE(folder->WriteFile("trainer/state.json", text).ok());
    ASSERT_TRUE(folder->Commit().ok());
    auto loaded = LoadNewestCheckpoint(run_, warnings_);
    ASSERT_FALSE(loaded.ok()) << text;
    EXPECT_EQ(loaded.status().code(), StatusCode::kDataLoss) << text;
    EXPECT_THAT(loaded.status().message(), HasSubstr("state.json"));
  }
}

TEST_F(CheckpointTest, PruneKeepsTheNewestAndWhatIsAlwaysKept) {
  for (std::uint32_t step : {1u, 2u, 3u, 4u, 5u, 6u}) Save(State(step));
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 2, .always = {2, 17}}).ok());
  EXPECT_EQ(Present(), (std::vector<std::uint32_t>{2, 5, 6}));
  ExpectEqual(Load(), State(6));
}

TEST_F(CheckpointTest, PruneKeepsEveryMth) {
  for (std::uint32_t step = 1; step < 10; ++step) Save(State(step));
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 2, .every = 4, .always = {1}}).ok());
  // 8 is kept for good, so it is none of the two newest.
  EXPECT_EQ(Present(), (std::vector<std::uint32_t>{1, 4, 7, 8, 9}));
}

TEST_F(CheckpointTest, PruneNeverDeletesTheLastWholeOne) {
  Save(State(3));
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 0}).ok());
  EXPECT_EQ(Present(), (std::vector<std::uint32_t>{3}));
  // A damaged newer one, passed over at the start, does not stand for a checkpoint.
  Save(State(9));
  Damage(Folder(9) / "model.safetensors");
  Save(State(5));
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 1}).ok());
  ExpectEqual(Load(), State(5));
  EXPECT_FALSE(fs::exists(Folder(3)));
}

TEST_F(CheckpointTest, WhatADeadProcessLeftIsRemoved) {
  EXPECT_TRUE(RemoveUnfinished(run_.folder).ok()) << "there are no checkpoints yet";
  const auto checkpoints = run_.folder / "checkpoints";
  std::filesystem::create_directories(checkpoints / "step_000002.tmp-0123456789abcdef/trainer");
  std::filesystem::create_directories(checkpoints / "step_000001");
  EXPECT_TRUE(RemoveUnfinished(run_.folder).ok());
  EXPECT_EQ(NamesIn(checkpoints), (std::vector<std::string>{"step_000001"}));
}

TEST_F(CheckpointTest, PruneLeavesWhatIsNoCheckpoint) {
  Save(State(3));
  Save(State(4));
  fs::create_directories(run_.folder / "checkpoints" / "step_1");
  fs::create_directories(run_.folder / "checkpoints" / "best");
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 1}).ok());
  EXPECT_TRUE(fs::exists(run_.folder / "checkpoints" / "step_1"));
  EXPECT_TRUE(fs::exists(run_.folder / "checkpoints" / "best"));
  EXPECT_EQ(Present(), (std::vector<std::uint32_t>{4}));
}

TEST_F(CheckpointTest, EverythingGoesThroughFiles) {
  MovedFiles files(folder_.path());
  run_ = NewRun(fs::path(MovedFiles::kDisk) / "moved");
  std::vector<std::string> warnings;
  ASSERT_TRUE(SaveCheckpoint(run_, State(3)).ok());
  ASSERT_TRUE(SaveCheckpoint(run_, State(4)).ok());
  ASSERT_TRUE(SaveCheckpoint(run_, State(4)).ok());  // kept: it is the same
  auto loaded = LoadNewestCheckpoint(run_, warnings);
  ASSERT_TRUE(loaded.ok() && loaded->has_value()) << loaded.status().ToString();
  EXPECT_EQ((*loaded)->step, 4u);
  EXPECT_TRUE(warnings.empty());
  ASSERT_TRUE(PruneCheckpoints(run_.folder, {.newest = 1}).ok());
  EXPECT_FALSE(Exists(Folder(3)));
  EXPECT_TRUE(Exists(Folder(4)));
}

}  // namespace
}  // namespace thresher::learner
