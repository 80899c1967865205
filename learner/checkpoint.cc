#include "learner/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/data/safetensors.h"
#include "common/model/weights.h"

namespace thresher::learner {
namespace {

using nlohmann::json;

constexpr int kStateFormat = 1;

std::string FolderName(std::uint32_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step_%06u", step);
  return name;
}

std::string EncodeVectors(const std::vector<std::pair<std::string, const std::vector<float>*>>& parts) {
  SafetensorsWriter writer;
  for (const auto& [name, values] : parts) {
    writer.Add(name, DType::kF32, {static_cast<std::int64_t>(values->size())},
               std::as_bytes(std::span(*values)));
  }
  return writer.Finish();
}

Result<std::vector<float>> DecodeVector(const SafetensorsReader& reader, const std::string& name,
                                        std::size_t count) {
  THRESHER_ASSIGN_OR_RETURN(auto tensor, reader.Get(name));
  if (tensor.dtype != DType::kF32 || tensor.bytes.size() != count * sizeof(float)) {
    return DataLoss("tensor " + name + ": " + std::to_string(tensor.bytes.size()) +
                    " bytes, expected " + std::to_string(count) + " floats");
  }
  std::vector<float> out(count);
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

json StateJson(const model::RunContext& run, const TrainState& state) {
  return {{"format", kStateFormat},
          {"run_id", run.run_id.ToString()},
          {"run_identity", run.identity.Hash().ToString()},
          {"lineage", state.lineage},
          {"step", state.step},
          {"optimizer_steps", state.optimizer.steps},
          {"weights_hash", HashBytes128(std::as_bytes(std::span(state.weights))).ToString()},
          // The ledger's cut: what this checkpoint contains is the batches of this chain.
          {"chain", state.chain.ToString()}};
}

Status WriteContents(const std::filesystem::path& folder, const model::RunContext& run,
                     const TrainState& state) {
  THRESHER_RETURN_IF_ERROR(
      model::SaveModelFolder(folder, run.model, state.weights, *run.tokenizer));
  THRESHER_RETURN_IF_ERROR(CreateDirectories(folder / "trainer"));
  THRESHER_RETURN_IF_ERROR(
      WriteFileAtomic(folder / "trainer" / "optimizer.safetensors",
                      EncodeVectors({{"first_moment", &state.optimizer.first_moment},
                                     {"second_moment", &state.optimizer.second_moment}})));
  if (!state.reference.empty()) {
    THRESHER_RETURN_IF_ERROR(WriteFileAtomic(folder / "trainer" / "reference.safetensors",
                                             EncodeVectors({{"reference", &state.reference}})));
  }
  return WriteFileAtomic(folder / "trainer" / "state.json", StateJson(run, state).dump(2) + "\n");
}

Status ReadState(const std::filesystem::path& folder, const model::RunContext& run,
                 TrainState& state) {
  const std::string file = (folder / "trainer" / "state.json").string();
  THRESHER_ASSIGN_OR_RETURN(std::string text, ReadFile(file));
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object() || parsed.value("format", 0) != kStateFormat) {
    return DataLoss(file + ": not a trainer state of format " + std::to_string(kStateFormat));
  }
  if (parsed.value("run_id", "") != run.run_id.ToString()) {
    return FailedPrecondition(file + ": belongs to run " + parsed.value("run_id", "?"));
  }
  if (parsed.value("run_identity", "") != run.identity.Hash().ToString()) {
    return FailedPrecondition(
        file + ": written under another run identity (build, kernel set, configuration or seed); "
               "continue with the build that wrote it, or start a new run from it (model.init)");
  }
  state.lineage = parsed.value("lineage", 0u);
  state.step = parsed.value("step", 0u);
  state.optimizer.steps = parsed.value("optimizer_steps", std::uint64_t{0});
  auto chain = Hash128::Parse(parsed.value("chain", ""));
  if (!chain.ok()) return chain.status().WithContext(file);
  state.chain = *chain;
  return Status::Ok();
}

Result<TrainState> LoadCheckpoint(const std::filesystem::path& folder,
                                  const model::RunContext& run) {
  TrainState state;
  THRESHER_RETURN_IF_ERROR(ReadState(folder, run, state));
  THRESHER_ASSIGN_OR_RETURN(std::string blob, ReadFile(folder / "model.safetensors"));
  THRESHER_ASSIGN_OR_RETURN(
      state.weights,
      model::DecodeWeights(run.model, blob, (folder / "model.safetensors").string()));
  const std::size_t count = state.weights.size();
  const auto optimizer_file = folder / "trainer" / "optimizer.safetensors";
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadFile(optimizer_file));
  THRESHER_ASSIGN_OR_RETURN(auto reader,
                            SafetensorsReader::Parse(bytes, optimizer_file.string()));
  THRESHER_ASSIGN_OR_RETURN(state.optimizer.first_moment,
                            DecodeVector(reader, "first_moment", count));
  THRESHER_ASSIGN_OR_RETURN(state.optimizer.second_moment,
                            DecodeVector(reader, "second_moment", count));
  const auto reference_file = folder / "trainer" / "reference.safetensors";
  auto reference = ReadFile(reference_file);
  if (reference.ok()) {
    THRESHER_ASSIGN_OR_RETURN(auto parsed,
                              SafetensorsReader::Parse(*reference, reference_file.string()));
    THRESHER_ASSIGN_OR_RETURN(state.reference, DecodeVector(parsed, "reference", count));
  } else if (reference.status().code() != StatusCode::kNotFound) {
    return reference.status();
  }
  return state;
}

// step -> folder of everything that looks like a checkpoint, newest last.
std::vector<std::pair<std::uint32_t, std::filesystem::path>> ListCheckpoints(
    const std::filesystem::path& run_folder) {
  std::vector<std::pair<std::uint32_t, std::filesystem::path>> out;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(run_folder / "checkpoints", error)) {
    unsigned step = 0;
    std::string name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), "step_%u", &step) != 1 || name != FolderName(step)) continue;
    out.emplace_back(step, entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

Result<SavedCheckpoint> SaveCheckpoint(const model::RunContext& run, const TrainState& state) {
  SavedCheckpoint saved;
  saved.folder = "checkpoints/" + FolderName(state.step);
  const std::filesystem::path target = run.folder / saved.folder;
  THRESHER_RETURN_IF_ERROR(CreateDirectories(run.folder / "checkpoints"));
  THRESHER_ASSIGN_OR_RETURN(auto writer, FolderWriter::Create(target));
  THRESHER_RETURN_IF_ERROR(WriteContents(writer.path(), run, state));
  auto committed = writer.Commit();
  if (committed.ok()) {
    saved.manifest_hash = *committed;
    return saved;
  }
  return committed.status();
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
    return std::optional<TrainState>(std::move(state));
  }
  return std::optional<TrainState>();
}

Status PruneCheckpoints(const std::filesystem::path& run_folder, int keep,
                        const std::vector<std::uint32_t>& always) {
  auto checkpoints = ListCheckpoints(run_folder);
  int newer = 0;
  for (auto entry = checkpoints.rbegin(); entry != checkpoints.rend(); ++entry) {
    if (std::find(always.begin(), always.end(), entry->first) != always.end()) continue;
    if (++newer <= std::max(1, keep)) continue;
    std::error_code error;
    std::filesystem::remove_all(entry->second, error);
    if (error) return Unavailable(entry->second.string() + ": " + error.message());
  }
  return Status::Ok();
}

}  // namespace thresher::learner
