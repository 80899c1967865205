#pragma once

#include <memory>

#include "actor/tasks/environment.h"
#include "common/config/config.h"
#include "common/examples/source.h"

namespace thresher::launch {

// Paths of supervised.file, supervised.run and supervised.eval_file from the root, so that every
// process of the run finds them, whatever folder it is started in.
Config WithAbsolutePaths(Config config);

// Opens what the run learns from besides its task and looks at all of it; null: nothing. Throws
// ConfigError.
std::unique_ptr<examples::SupervisedSource> OpenExamples(const Config& config,
                                                         const tasks::Environment& environment);

}  // namespace thresher::launch
