#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>

#include "common/data/folder.h"
#include "common/data/safetensors.h"
#include "common/model/model_folder.h"
#include "common/model/weights.h"
#include "launch/commands.h"
#include "launch/model_files.h"
#include "launch/policy.h"

namespace thresher::launch {
namespace {

namespace fs = std::filesystem;

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
  if (type == kernels::WeightType::kF32 && config.dtype != type) {
    THRESHER_ASSIGN_OR_RETURN(flat, ReadMasters(source.folder, config));
  }
  if (!flat) {
    THRESHER_ASSIGN_OR_RETURN(flat, model::LoadFlatWeights(source.folder, config));
  }
  config.dtype = type;
  const fs::path to = fs::absolute(options.to).lexically_normal();
  THRESHER_RETURN_IF_ERROR(MakeWay(to));
  THRESHER_ASSIGN_OR_RETURN(FolderWriter writer, FolderWriter::Open(to));
  THRESHER_RETURN_IF_ERROR(model::SaveWeightsFolder(writer.path(), config, *flat));
  THRESHER_RETURN_IF_ERROR(CopyModelFiles(source.folder, writer.path()));
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
