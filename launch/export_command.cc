#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>

#include "common/data/files.h"
#include "common/data/folder.h"
#include "common/data/safetensors.h"
#include "common/model/adapter_files.h"
#include "common/model/model_folder.h"
#include "common/model/weights.h"
#include "launch/commands.h"
#include "launch/model_files.h"
#include "launch/policy.h"

namespace thresher::launch {
namespace {

namespace fs = std::filesystem;

constexpr char kBaseFolder[] = "base";

// The fp32 weights behind the 16-bit ones of a checkpoint (learner/checkpoint.h); nothing where it
// holds none.
Result<std::optional<std::vector<float>>> ReadMasters(const fs::path& checkpoint,
                                                      const model::ModelConfig& config) {
  const fs::path file = checkpoint / "trainer/masters.safetensors";
  std::error_code error;
  if (!fs::exists(file, error)) return std::optional<std::vector<float>>();
  THRESHER_ASSIGN_OR_RETURN(const Safetensors opened, Safetensors::Open(file));
  THRESHER_ASSIGN_OR_RETURN(const TensorView tensor, opened.Find("masters"));
  std::vector<float> masters(model::ParameterCount(config));
  if (tensor.dtype != DType::kF32 || tensor.data.size() != masters.size() * sizeof(float)) {
    return DataLoss(file.string() + ": tensor masters has " + std::to_string(tensor.data.size()) +
                    " bytes of " + DTypeName(tensor.dtype) + ", expected " +
                    std::to_string(masters.size()) + " F32");
  }
  std::memcpy(masters.data(), tensor.data.data(), tensor.data.size());
  return std::optional<std::vector<float>>(std::move(masters));
}

Result<kernels::WeightType> AskedType(const ExportOptions& options, kernels::WeightType stored) {
  if (options.dtype.empty()) return stored;
  const auto type = model::ParseWeightType(options.dtype);
  if (type && *type != kernels::WeightType::kF16) return *type;
  return InvalidArgument("--dtype is " + options.dtype + "; allowed: float32, bfloat16");
}

// A folder that holds something may be somebody's work.
Status MakeWay(const fs::path& to) {
  std::error_code error;
  if (!fs::exists(to, error)) return Status::Ok();
  if (!fs::is_directory(to, error) || !fs::is_empty(to, error)) {
    return AlreadyExists("--to is " + to.string() +
                         ", which is there; allowed: a new folder, or an empty one");
  }
  fs::remove(to, error);
  return error ? Unavailable(to.string() + ": " + error.message()) : Status::Ok();
}

// The checkpoint's adapters (learner/checkpoint.h) go to the folder itself; `flat` becomes the model
// without them, which goes to base/ and will stand in `to`.
Status TakeAdapters(const fs::path& checkpoint, const fs::path& to, const model::ModelConfig& config,
                    FolderWriter& writer, std::vector<float>& flat) {
  const fs::path trainer = checkpoint / "trainer";
  std::error_code error;
  if (!fs::exists(trainer / model::kAdapterFile, error)) {
    return InvalidArgument("--adapter: " + checkpoint.string() +
                           " holds none; allowed: a checkpoint of a run with lora.rank after they "
                           "have begun (lora.phase)");
  }
  THRESHER_ASSIGN_OR_RETURN(const Safetensors base,
                            Safetensors::Open(trainer / "base.safetensors"));
  for (const model::ParameterInfo& info : model::ParameterList(config)) {
    const auto tensor = base.Find(info.name);
    if (!tensor.ok()) continue;  // of no target
    if (tensor->dtype != DType::kF32 || tensor->shape != info.shape) {
      return DataLoss((trainer / "base.safetensors").string() + ": tensor " + info.name +
                      " is of another model");
    }
    std::memcpy(flat.data() + info.offset, tensor->data.data(), tensor->data.size());
  }
  THRESHER_ASSIGN_OR_RETURN(const std::string adapters, ReadFile(trainer / model::kAdapterFile));
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(writer.path() / model::kAdapterFile, adapters));
  THRESHER_ASSIGN_OR_RETURN(const std::string json, ReadFile(trainer / model::kAdapterConfigFile));
  THRESHER_ASSIGN_OR_RETURN(const std::string named,
                            model::WithBase(json, (to / kBaseFolder).string()));
  THRESHER_RETURN_IF_ERROR(WriteFileAtomic(writer.path() / model::kAdapterConfigFile, named));
  return CreateDirectories(writer.path() / kBaseFolder);
}

struct Exported {
  fs::path from;
  std::size_t parameters = 0;
  kernels::WeightType type = kernels::WeightType::kF32;
};

Result<Exported> Export(const ExportOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(const ModelSource source, FindModel(options.model));
  // A checkpoint says what it must hold; another model folder does not.
  if (fs::exists(source.folder / kManifestName)) {
    THRESHER_RETURN_IF_ERROR(VerifyFolder(source.folder).status());
  }
  THRESHER_ASSIGN_OR_RETURN(model::ModelConfig config, model::LoadModelConfig(source.folder));
  THRESHER_ASSIGN_OR_RETURN(const kernels::WeightType type, AskedType(options, config.dtype));
  std::optional<std::vector<float>> flat;
  const bool masters = type == kernels::WeightType::kF32 || options.adapter;
  if (masters && config.dtype != kernels::WeightType::kF32) {
    THRESHER_ASSIGN_OR_RETURN(flat, ReadMasters(source.folder, config));
  }
  if (!flat) {
    THRESHER_ASSIGN_OR_RETURN(flat, model::LoadFlatWeights(source.folder, config));
  }
  config.dtype = type;
  const fs::path to = fs::absolute(options.to).lexically_normal();
  THRESHER_RETURN_IF_ERROR(MakeWay(to));
  THRESHER_ASSIGN_OR_RETURN(FolderWriter writer, FolderWriter::Open(to));
  fs::path target = writer.path();
  if (options.adapter) {
    THRESHER_RETURN_IF_ERROR(TakeAdapters(source.folder, to, config, writer, *flat));
    target /= kBaseFolder;
  }
  THRESHER_RETURN_IF_ERROR(model::SaveWeightsFolder(target, config, *flat));
  THRESHER_RETURN_IF_ERROR(CopyModelFiles(source.folder, target));
  THRESHER_RETURN_IF_ERROR(PublishAll(writer));
  return Exported{source.folder, flat->size(), type};
}

}  // namespace

int ExportCommand(const ExportOptions& options) {
  const auto exported = Export(options);
  if (!exported.ok()) {
    const StatusCode code = exported.status().code();
    const bool usage = code == StatusCode::kInvalidArgument || code == StatusCode::kNotFound ||
                       code == StatusCode::kAlreadyExists || code == StatusCode::kDataLoss;
    return Report(exported.status(), usage ? kExitUsage : kExitFailure);
  }
  std::cerr << options.to << ": " << exported->parameters << " parameters of "
            << exported->from.string() << " in " << kernels::WeightTypeName(exported->type) << "\n";
  return kExitOk;
}

}  // namespace thresher::launch
