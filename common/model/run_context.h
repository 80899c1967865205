#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/data/data_hash.h"
#include "common/data/run_identity.h"
#include "common/model/model_config.h"
#include "common/model/tokenizer.h"
#include "common/model/trained.h"

namespace thresher::model {

// What every process of a run reads from the run directory before it starts: config.yaml
// (resolved), manifest.json (run id) and model/ (config.json, tokenizer.json), all written by
// CreateRun. The run directory may be a copy on another host.
struct RunContext {
  std::filesystem::path folder;
  Config config;
  Hash128 run_id;
  ModelConfig model;
  std::unique_ptr<Tokenizer> tokenizer;
  RunIdentity identity;
  Trained trained{};
  std::vector<DataHash> data;  // what it learns from besides its task (common/examples)
};

// Chooses the run's kernel set for this process. Errors: kNotFound / kDataLoss naming the file,
// those of Trained::Of.
// Throws ConfigError for config.yaml.
Result<RunContext> OpenRun(const std::filesystem::path& folder);

// Makes a run directory: the folder itself, config.yaml, model/ and, last, manifest.json (random
// run id, revision, build, host, seed, start time): a folder without it is a half-written one.
// config.yaml names the kernel set that engine.kernel_set `auto` stands for on this machine with
// engine.kernels.
// `alphabet`: the task's characters. `data`: goes into the manifest and the identity. Errors: kAlreadyExists (manifest.json is there), I/O.
Result<RunContext> CreateRun(const std::filesystem::path& folder, const Config& config,
                             const std::string& alphabet, const std::vector<DataHash>& data = {});

// The model's shape that a configuration asks for with a tokenizer of `vocab` tokens.
ModelConfig ShapeFromConfig(const Config& config, std::int32_t vocab);

// `config` for going on with a run: a kernel set that is left to us is the one the run has.
Config WithKernelSetOf(const Config& run, Config config);

// The run identity of this process for a configuration (DESIGN section 2).
RunIdentity MakeRunIdentity(const Config& config, const ModelConfig& model,
                            const Tokenizer& tokenizer, const std::vector<DataHash>& data = {});

}  // namespace thresher::model
