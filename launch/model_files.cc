#include "launch/model_files.h"

#include <system_error>

namespace thresher::launch {
namespace {

constexpr const char* kFiles[] = {"tokenizer.json",          "tokenizer_config.json",
                                  "special_tokens_map.json", "added_tokens.json",
                                  "chat_template.jinja",     "generation_config.json"};

}  // namespace

Status CopyModelFiles(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : kFiles) {
    std::error_code error;
    if (!std::filesystem::exists(from / name, error)) continue;
    std::filesystem::copy_file(from / name, to / name,
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error) return Unavailable((from / name).string() + ": " + error.message());
  }
  return Status::Ok();
}

Status PublishAll(FolderWriter& writer) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(writer.path())) {
    if (entry.is_directory()) continue;
    THRESHER_RETURN_IF_ERROR(
        writer.AddFile(entry.path().lexically_relative(writer.path()).string()));
  }
  return writer.Commit().status();
}

}  // namespace thresher::launch
