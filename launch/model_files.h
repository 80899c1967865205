#pragma once

#include <filesystem>

#include "common/base/status.h"
#include "common/data/folder.h"

namespace thresher::launch {

// Copies what belongs to a model folder beside weights and config.json, as far as `from` has it:
// tokenizer, chat template, defaults of generation.
Status CopyModelFiles(const std::filesystem::path& from, const std::filesystem::path& to);

// Lists every file that stands in the folder being written, and publishes it. Errors:
// FolderWriter's.
Status PublishAll(FolderWriter& writer);

}  // namespace thresher::launch
