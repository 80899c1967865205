#include "common/comm/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace thresher::comm {
namespace {

constexpr const char* kRemedy =
    "install one (pip package nvidia-nccl-cu13, or the system's libnccl2), or name its file in "
    "THRESHER_NCCL_LIBRARY";

std::string LoaderError() {
  const char* text = dlerror();
  return text == nullptr ? "unknown" : text;
}

// The file that `symbol` came from.
std::string FileOf(void* symbol, const std::string& name) {
  Dl_info info;
  if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return name;
  std::error_code error;
  const auto file = std::filesystem::canonical(info.dli_fname, error);
  return error ? info.dli_fname : file.string();
}

Result<NcclLibrary> Bind(void* handle, const std::string& name) {
  NcclLibrary library;
  std::string missing;
  nccl::ForEachFunction([&](auto member, const char* symbol) {
    void* address = dlsym(handle, symbol);
    if (address == nullptr && missing.empty()) missing = symbol;
    library.api.*member =
        reinterpret_cast<std::remove_reference_t<decltype(library.api.*member)>>(address);
  });
  library.path = name;
  if (library.api.GetVersion != nullptr) {
    library.path = FileOf(reinterpret_cast<void*>(library.api.GetVersion), name);
    if (library.api.GetVersion(&library.version) != nccl::kSuccess) library.version = 0;
  }
  if (library.version != 0 && library.version < nccl::kOldestVersion) {
    return FailedPrecondition(
        "NCCL: " + library.path + " is version " + NcclVersionText(library.version) +
        "; needed: " + NcclVersionText(nccl::kOldestVersion) + " or newer; " + kRemedy);
  }
  if (!missing.empty() || library.version == 0) {
    return FailedPrecondition("NCCL: " + library.path + " is no NCCL of version " +
                              NcclVersionText(nccl::kOldestVersion) + " or newer (" +
                              (missing.empty() ? "no version" : "no " + missing) + "); " + kRemedy);
  }
  return library;
}

}  // namespace

std::string NcclVersionText(int version) {
  // Before 2.9 a version was major * 1000 + minor * 100 + patch.
  const int major = version < 10000 ? version / 1000 : version / 10000;
  const int minor = version < 10000 ? version % 1000 / 100 : version % 10000 / 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(version % 100);
}

NcclSearch DefaultNcclSearch() {
  NcclSearch search;
  if (const char* file = std::getenv("THRESHER_NCCL_LIBRARY"); file != nullptr && *file != '\0') {
    search.candidates = {file};
    search.only = true;
    return search;
  }
  const std::string beside_torch = THRESHER_NCCL_BESIDE_TORCH;
  if (!beside_torch.empty()) search.candidates.push_back(beside_torch);
  search.candidates.push_back("libnccl.so.2");
  return search;
}

Result<NcclLibrary> OpenNccl(const NcclSearch& search) {
  if (!search.loaded.empty()) {
    void* handle = dlopen(search.loaded.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (handle != nullptr) return Bind(handle, search.loaded);
  }
  std::string looked;
  for (const std::string& candidate : search.candidates) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return Bind(handle, candidate);
    looked += (looked.empty() ? "" : "; ") + LoaderError();
  }
  if (search.only) {
    return NotFound("NCCL: THRESHER_NCCL_LIBRARY cannot be loaded: " + looked);
  }
  return NotFound("NCCL: there is no libnccl.so.2 (" + looked + "); " + kRemedy);
}

Result<const NcclLibrary*> ProcessNccl() {
  static const Result<NcclLibrary> library = OpenNccl(DefaultNcclSearch());
  if (!library.ok()) return library.status();
  return &*library;
}

}  // namespace thresher::comm
