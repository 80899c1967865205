#include "learner/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/data/safetensors.h"
#include "common/model/adapter_files.h"
#include "common/model/model_folder.h"
#include "common/model/weights.h"

namespace thresher::learner {
namespace {

using nlohmann::json;

constexpr unsigned kStateFormat = 1;
constexpr const char* kStateFile = "trainer/state.json";
constexpr const char* kOptimizerFile = "trainer/optimizer.safetensors";
constexpr const char* kMastersFile = "trainer/masters.safetensors";
constexpr const char* kReferenceFile = "trainer/reference.safetensors";
constexpr const char* kCriticFile = "trainer/critic.safetensors";
constexpr const char* kBaseFile = "trainer/base.safetensors";

std::string InTrainer(const char* file) { return std::string("trainer/") + file; }

std::string FolderName(std::uint32_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step_%06u", step);
  return name;
}

TensorView VectorView(const std::string& name, const std::vector<float>& values) {
  return {name,
          DType::kF32,
          {static_cast<std::int64_t>(values.size())},
          {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}};
}

// From where they are: a copy of the moments is as large as both.
Status WriteTensors(FolderWriter& folder, const std::string& file,
                    const std::vector<TensorView>& tensors) {
  THRESHER_ASSIGN_OR_RETURN(const std::string header, EncodeSafetensorsHeader(tensors, {}));
  std::vector<std::string_view> pieces = {header};
  for (const TensorView& tensor : tensors) pieces.push_back(tensor.data);
  return folder.WriteFile(file, pieces);
}

Result<std::vector<float>> ReadVector(const Safetensors& file, const std::string& name,
                                      std::size_t count) {
  THRESHER_ASSIGN_OR_RETURN(TensorView tensor, file.Find(name));
  if (tensor.dtype != DType::kF32 || tensor.data.size() != count * sizeof(float)) {
    return DataLoss("tensor " + name + ": " + std::to_string(tensor.data.size()) + " bytes of " +
                    DTypeName(tensor.dtype) + ", expected " + std::to_string(count) + " F32");
  }
  std::vector<float> out(count);
  std::memcpy(out.data(), tensor.data.data(), tensor.data.size());
  return out;
}

Hash128 HashOf(const std::vector<float>& weights) {
  return HashBytes128(std::as_bytes(std::span(weights)));
}

json StateJson(const model::RunContext& run, const TrainState& state) {
  json out = {{"format", kStateFormat},
              {"run_id", run.run_id.ToString()},
              {"run_identity", run.identity.Hash().ToString()},
              {"lineage", state.lineage},
              {"step", state.step},
              {"optimizer_steps", state.optimizer.steps},
              {"weights_hash", HashOf(state.weights).ToString()},
              // The ledger's cut: what this checkpoint contains is the batches of this chain.
              {"chain", state.chain.ToString()}};
  if (!state.critic.weights.empty()) out["critic_steps"] = state.critic.optimizer.steps;
  return out;
}

Status WriteCritic(FolderWriter& folder, const CriticState& critic) {
  return WriteTensors(folder, kCriticFile,
                      {VectorView("weights", critic.weights),
                       VectorView("first_moment", critic.optimizer.first_moment),
                       VectorView("second_moment", critic.optimizer.second_moment)});
}

// Nothing where the checkpoint has none, which is for the caller to judge.
Status ReadCritic(const std::filesystem::path& folder, const model::RunContext& run,
                  CriticState& critic) {
  const auto kind = CriticKindOf(run.config.objective);
  if (!kind || !Exists(folder / kCriticFile)) return Status::Ok();
  const std::size_t count = CriticParameterCount(*kind, run.model);
  THRESHER_ASSIGN_OR_RETURN(Safetensors file, Safetensors::Open(folder / kCriticFile));
  THRESHER_ASSIGN_OR_RETURN(critic.weights, ReadVector(file, "weights", count));
  THRESHER_ASSIGN_OR_RETURN(critic.optimizer.first_moment, ReadVector(file, "first_moment", count));
  THRESHER_ASSIGN_OR_RETURN(critic.optimizer.second_moment,
                            ReadVector(file, "second_moment", count));
  return Status::Ok();
}

Status WriteAdapters(FolderWriter& folder, const model::Lora& lora, const AdapterState& state) {
  THRESHER_RETURN_IF_ERROR(WriteTensors(folder, InTrainer(model::kAdapterFile),
                                        model::AdapterTensors(lora, state.weights)));
  THRESHER_RETURN_IF_ERROR(WriteTensors(folder, kBaseFile, model::BaseTensors(lora, state.base)));
  return folder.WriteFile(InTrainer(model::kAdapterConfigFile), model::AdapterConfigJson(lora, ""));
}

// Nothing where the checkpoint has none, which is for the caller to judge.
Status ReadAdapters(const std::filesystem::path& folder, const model::RunContext& run,
                    AdapterState& state) {
  const std::filesystem::path file = folder / InTrainer(model::kAdapterFile);
  if (!Exists(file)) return Status::Ok();
  if (!run.trained.lora) {
    return FailedPrecondition(file.string() +
                              ": adapters; allowed: none, for the run's lora.rank is 0");
  }
  const model::Lora& lora = *run.trained.lora;
  THRESHER_RETURN_IF_ERROR(
      model::CheckAdapterConfig(folder / InTrainer(model::kAdapterConfigFile), lora));
  THRESHER_ASSIGN_OR_RETURN(state.weights, model::ReadAdapters(file, lora));
  THRESHER_ASSIGN_OR_RETURN(state.base, model::ReadBase(folder / kBaseFile, lora));
  return Status::Ok();
}

std::size_t TrainedCount(const model::RunContext& run, const AdapterState& adapters) {
  if (!adapters.empty()) return run.trained.lora->count();
  std::size_t count = 0;
  for (const auto& info : run.trained.List(run.model)) count += info.count;
  return count;
}

// The weights have to be what base and adapters give.
Status CheckMerged(const std::filesystem::path& folder, const model::RunContext& run,
                   TrainState& state) {
  if (state.adapters.empty()) return Status::Ok();
  const model::Lora& lora = *run.trained.lora;
  const Hash128 saved = HashOf(state.weights);
  for (std::size_t i = 0; i < lora.targets().size(); ++i) {
    lora.Merge(i, state.adapters.base, state.adapters.weights, state.weights);
  }
  if (HashOf(state.weights) == saved) return Status::Ok();
  return DataLoss(folder.string() + ": the weights are not those of " + kBaseFile + " and " +
                  InTrainer(model::kAdapterFile) + " merged");
}

Status WriteContents(FolderWriter& folder, const model::RunContext& run, const TrainState& state,
                     const std::function<void()>& half_written) {
  THRESHER_RETURN_IF_ERROR(
      model::SaveModelFolder(folder.path(), run.model, state.weights, *run.tokenizer));
  for (const std::string& name : NamesIn(folder.path())) {
    THRESHER_RETURN_IF_ERROR(folder.AddFile(name));
  }
  if (half_written) half_written();
  THRESHER_RETURN_IF_ERROR(
      WriteTensors(folder, kOptimizerFile,
                   {VectorView("first_moment", state.optimizer.first_moment),
                    VectorView("second_moment", state.optimizer.second_moment)}));
  if (run.model.dtype != kernels::WeightType::kF32) {
    THRESHER_RETURN_IF_ERROR(
        WriteTensors(folder, kMastersFile, {VectorView("masters", state.weights)}));
  }
  if (state.reference != nullptr) {
    THRESHER_RETURN_IF_ERROR(
        WriteTensors(folder, kReferenceFile, {VectorView("reference", *state.reference)}));
  }
  if (!state.critic.weights.empty()) {
    THRESHER_RETURN_IF_ERROR(WriteCritic(folder, state.critic));
  }
  if (!state.adapters.empty()) {
    THRESHER_RETURN_IF_ERROR(WriteAdapters(folder, *run.trained.lora, state.adapters));
  }
  return folder.WriteFile(kStateFile, StateJson(run, state).dump(2) + "\n");
}

// Whether a retrained step arrived at the state that is saved.
bool SameState(const TrainState& a, const TrainState& b) {
  auto same_bits = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && HashOf(x) == HashOf(y);
  };
  return a.lineage == b.lineage && a.step == b.step && a.chain == b.chain &&
         a.optimizer.steps == b.optimizer.steps && same_bits(a.weights, b.weights) &&
         same_bits(a.optimizer.first_moment, b.optimizer.first_moment) &&
         same_bits(a.optimizer.second_moment, b.optimizer.second_moment) &&
         (a.reference == nullptr) == (b.reference == nullptr) &&
         (a.reference == nullptr || same_bits(*a.reference, *b.reference)) &&
         same_bits(a.adapters.base, b.adapters.base) &&
         same_bits(a.adapters.weights, b.adapters.weights) &&
         a.critic.optimizer.steps == b.critic.optimizer.steps &&
         same_bits(a.critic.weights, b.critic.weights) &&
         same_bits(a.critic.optimizer.first_moment, b.critic.optimizer.first_moment) &&
         same_bits(a.critic.optimizer.second_moment, b.critic.optimizer.second_moment);
}

// Member `key` of a JSON object; `fallback` when it is missing or of another type.
template <typename T>
T Member(const json& object, const char* key, T fallback) {
  auto found = object.find(key);
  if (found == object.end()) return fallback;
  if constexpr (std::is_same_v<T, std::string>) {
    return found->is_string() ? found->get<T>() : fallback;
  } else {
    return found->is_number_unsigned() ? found->get<T>() : fallback;
  }
}

Status ReadState(const std::filesystem::path& folder, const model::RunContext& run,
                 TrainState& state) {
  const std::string file = (folder / kStateFile).string();
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(file));
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object() || Member(parsed, "format", 0u) != kStateFormat) {
    return DataLoss(file + ": not a trainer state of format " + std::to_string(kStateFormat));
  }
  const auto run_id = Hash128::Parse(Member(parsed, "run_id", std::string()));
  if (!run_id.ok()) return DataLoss(file + ": run_id: " + run_id.status().message());
  if (*run_id != run.run_id) {
    return FailedPrecondition(file + ": belongs to run " + run_id->ToString());
  }
  if (Member(parsed, "run_identity", std::string()) != run.identity.Hash().ToString()) {
    return FailedPrecondition(
        file +
        ": written under another run identity (build, kernel set, configuration or seed); "
        "continue with the build that wrote it, or start a new run from it (model.init)");
  }
  state.lineage = Member(parsed, "lineage", 0u);
  state.step = Member(parsed, "step", 0u);
  state.optimizer.steps = Member(parsed, "optimizer_steps", std::uint64_t{0});
  state.critic.optimizer.steps = Member(parsed, "critic_steps", std::uint64_t{0});
  auto chain = Hash128::Parse(Member(parsed, "chain", std::string()));
  if (!chain.ok()) return DataLoss(file + ": chain: " + chain.status().message());
  state.chain = *chain;
  return Status::Ok();
}

Result<TrainState> LoadCheckpoint(const std::filesystem::path& folder,
                                  const model::RunContext& run) {
  TrainState state;
  THRESHER_RETURN_IF_ERROR(ReadState(folder, run, state));
  const std::size_t count = model::ParameterCount(run.model);
  if (run.model.dtype == kernels::WeightType::kF32) {
    THRESHER_ASSIGN_OR_RETURN(state.weights, model::LoadFlatWeights(folder, run.model));
  } else {
    THRESHER_ASSIGN_OR_RETURN(auto masters, LoadMasters(folder, run.model));
    if (!masters) return NotFound((folder / kMastersFile).string() + " is missing");
    state.weights = std::move(*masters);
  }
  THRESHER_RETURN_IF_ERROR(ReadAdapters(folder, run, state.adapters));
  THRESHER_RETURN_IF_ERROR(CheckMerged(folder, run, state));
  const std::size_t trained = TrainedCount(run, state.adapters);
  THRESHER_ASSIGN_OR_RETURN(Safetensors moments, Safetensors::Open(folder / kOptimizerFile));
  THRESHER_ASSIGN_OR_RETURN(state.optimizer.first_moment,
                            ReadVector(moments, "first_moment", trained));
  THRESHER_ASSIGN_OR_RETURN(state.optimizer.second_moment,
                            ReadVector(moments, "second_moment", trained));
  if (Exists(folder / kReferenceFile)) {
    THRESHER_ASSIGN_OR_RETURN(Safetensors reference, Safetensors::Open(folder / kReferenceFile));
    THRESHER_ASSIGN_OR_RETURN(auto weights, ReadVector(reference, "reference", count));
    state.reference = std::make_shared<const std::vector<float>>(std::move(weights));
  }
  THRESHER_RETURN_IF_ERROR(ReadCritic(folder, run, state.critic));
  return state;
}

// step -> folder of everything that looks like a checkpoint, newest last.
std::vector<std::pair<std::uint32_t, std::filesystem::path>> ListCheckpoints(
    const std::filesystem::path& run_folder) {
  std::vector<std::pair<std::uint32_t, std::filesystem::path>> out;
  const std::filesystem::path folder = run_folder / "checkpoints";
  for (const std::string& name : NamesIn(folder)) {
    unsigned step = 0;
    if (std::sscanf(name.c_str(), "step_%u", &step) != 1 || name != FolderName(step)) continue;
    out.emplace_back(step, folder / name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

Result<std::optional<std::vector<float>>> LoadMasters(const std::filesystem::path& folder,
                                                      const model::ModelConfig& config) {
  const std::filesystem::path file = folder / kMastersFile;
  if (!Exists(file)) return std::optional<std::vector<float>>();
  THRESHER_ASSIGN_OR_RETURN(Safetensors opened, Safetensors::Open(file));
  auto masters = ReadVector(opened, "masters", model::ParameterCount(config));
  if (!masters.ok()) return masters.status().WithContext(file.string());
  return std::optional<std::vector<float>>(std::move(*masters));
}

Result<SavedCheckpoint> SaveCheckpoint(const model::RunContext& run, const TrainState& state,
                                       const std::function<void()>& half_written) {
  SavedCheckpoint saved;
  saved.folder = "checkpoints/" + FolderName(state.step);
  const std::filesystem::path target = run.folder / saved.folder;
  if (Exists(target)) {
    auto whole = VerifyFolder(target);
    if (whole.ok()) {
      THRESHER_ASSIGN_OR_RETURN(TrainState existing, LoadCheckpoint(target, run));
      if (!SameState(existing, state)) {
        return AlreadyExists(target.string() + " holds another state of this step");
      }
      THRESHER_RETURN_IF_ERROR(SyncFolderName(target));
      saved.manifest_hash = whole->hash;
      return saved;
    }
    // Damaged: it was passed over at the start and is replaced now.
    const Status removed = RemoveFolder(target);
    if (!removed.ok()) return Unavailable(removed.message());
  }
  THRESHER_ASSIGN_OR_RETURN(FolderWriter folder, FolderWriter::Open(target));
  THRESHER_RETURN_IF_ERROR(WriteContents(folder, run, state, half_written));
  THRESHER_ASSIGN_OR_RETURN(FolderManifest manifest, folder.Commit());
  saved.manifest_hash = manifest.hash;
  return saved;
}

Result<std::optional<TrainState>> LoadNewestCheckpoint(const model::RunContext& run,
                                                       std::vector<std::string>& warnings) {
  auto checkpoints = ListCheckpoints(run.folder);
  for (auto entry = checkpoints.rbegin(); entry != checkpoints.rend(); ++entry) {
    auto whole = VerifyFolder(entry->second);
    if (!whole.ok()) {
      warnings.push_back("checkpoint passed over: " + whole.status().ToString());
      continue;
    }
    THRESHER_ASSIGN_OR_RETURN(TrainState state, LoadCheckpoint(entry->second, run));
    if (state.step != entry->first) {
      return DataLoss(entry->second.string() + " holds step " + std::to_string(state.step) +
                      "; was the folder renamed?");
    }
    return std::optional<TrainState>(std::move(state));
  }
  return std::optional<TrainState>();
}

Status RemoveUnfinished(const std::filesystem::path& run_folder) {
  const std::filesystem::path folder = run_folder / "checkpoints";
  return Exists(folder) ? RemoveTemporaries(folder).status() : Status::Ok();
}

bool KeepRules::Always(std::uint32_t step) const {
  return (every > 0 && step % static_cast<std::uint32_t>(every) == 0) ||
         std::find(always.begin(), always.end(), step) != always.end();
}

Status PruneCheckpoints(const std::filesystem::path& run_folder, const KeepRules& rules) {
  auto checkpoints = ListCheckpoints(run_folder);
  int whole = 0;
  for (auto entry = checkpoints.rbegin(); entry != checkpoints.rend(); ++entry) {
    if (rules.Always(entry->first)) continue;
    if (whole < std::max(1, rules.newest)) {
      whole += VerifyFolder(entry->second).ok();
      continue;
    }
    const Status removed = RemoveFolder(entry->second);
    if (!removed.ok()) return Unavailable(removed.message());
  }
  return Status::Ok();
}

}  // namespace thresher::learner
