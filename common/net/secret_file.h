#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "common/base/status.h"

namespace thresher::net {

// The content of a file only its owner may read (0600); made from `make` when missing. Of several
// processes that make it at once one wins and all read the winner's bytes. Errors:
// kPermissionDenied (mode or owner, or a link), kDataLoss (over 4 KiB), kUnavailable (cannot
// write).
Result<std::string> LoadOrCreateSecret(const std::filesystem::path& file,
                                       const std::function<Result<std::string>()>& make);

// Makes `folder` with mode 0700 when missing. Error: kPermissionDenied when it belongs to another
// user or is open to others; kUnavailable.
Status MakePrivateFolder(const std::filesystem::path& folder);
// The check alone.
Status CheckPrivateFolder(const std::filesystem::path& folder);

// `count` bytes of the system's entropy source.
std::string RandomBytes(std::size_t count);

// Time depends on the lengths alone.
bool EqualInConstantTime(const std::string& a, const std::string& b);

}  // namespace thresher::net
