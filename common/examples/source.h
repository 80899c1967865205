#pragma once

#include <memory>

#include "common/config/config.h"
#include "common/examples/example.h"
#include "common/model/run_context.h"

namespace thresher::examples {

// What examples are encoded with.
struct ModelSide {
  const model::Tokenizer& tokenizer;
  std::int32_t bos = -1, eos = -1;
  std::size_t context = 0;
};

// Whether a run learns from files: supervised.source is not the task's traces, and there are steps
// that ask for examples, or a loss to measure.
bool UsesFiles(const Config& config);

// Opens supervised.source and reads it through; the conversations of its files are written with the
// chat template of model.init's folder, if that has one. Errors name key and path, and what those
// of rows.h name; kInvalidArgument when no example is left to train on, or to measure.
Result<std::unique_ptr<SupervisedSource>> OpenSource(const Config& config, const ModelSide& model);

// The same for a run that was made with it: what was looked at then is not looked at again, but it
// must be what it was. Error also: kFailedPrecondition naming what has changed.
Result<std::unique_ptr<SupervisedSource>> OpenSource(const model::RunContext& run);

// Error: kFailedPrecondition naming key and path of the first that differs in content or weight.
Status RequireSameData(const std::vector<DataHash>& recorded, const std::vector<DataHash>& found);

}  // namespace thresher::examples
