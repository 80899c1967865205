#include <unistd.h>

#include <cstdlib>

#include "common/base/hash.h"
#include "common/data/file_system.h"
#include "common/net/secret_file.h"
#include "common/net/socket.h"

namespace thresher::net {
namespace {

// sockaddr_un::sun_path holds 107 bytes and the end; file names of sockets stay below this.
constexpr std::size_t kMaxPathBytes = 107;
constexpr std::size_t kFileNameRoom = 24;

bool Fits(const std::filesystem::path& folder) {
  return folder.string().size() + 1 + kFileNameRoom <= kMaxPathBytes;
}

std::filesystem::path Absolute(const std::filesystem::path& run) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::weakly_canonical(run, error);
  return error ? std::filesystem::absolute(run) : path;
}

// The user's own runtime folder where the system gives one, else /tmp.
std::filesystem::path FallbackBase() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/' && CheckPrivateFolder(runtime).ok()) return runtime;
  return "/tmp";
}

std::filesystem::path FallbackFolder(const std::filesystem::path& run) {
  // The user is part of the name: two users may run below one shared path.
  std::string key = Absolute(run).string() + "\n" + std::to_string(::geteuid());
  std::string name = "thresher-" + HashText128(key).ToString().substr(0, 20);
  std::filesystem::path folder = FallbackBase() / name;
  return Fits(folder) ? folder : std::filesystem::path("/tmp") / name;
}

}  // namespace

std::filesystem::path SocketFolder(const std::filesystem::path& run) {
  std::filesystem::path folder = Absolute(run) / "sockets";
  if (!Fits(folder)) folder = FallbackFolder(run);
  // When it cannot be made, or is not ours, Server::Bind says so.
  (void)MakePrivateFolder(folder).ok();
  return folder;
}

void RemoveSocketFolder(const std::filesystem::path& run) {
  std::filesystem::path folder = Absolute(run) / "sockets";
  if (!Fits(folder)) folder = FallbackFolder(run);
  if (CheckPrivateFolder(folder).ok()) (void)Files().RemoveAll(folder).ok();
}

}  // namespace thresher::net
