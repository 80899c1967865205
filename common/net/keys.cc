#include <zmq.h>

#include <array>

#include "common/data/files.h"
#include "common/net/secret_file.h"
#include "common/net/socket.h"

namespace thresher::net {
namespace {

constexpr std::size_t kZ85KeyChars = 40;

// "public\nsecret\n" of a pair that belongs together.
Result<KeyPair> ParseKeyFile(const std::filesystem::path& file, const std::string& text) {
  std::size_t expected = 2 * (kZ85KeyChars + 1);
  Status damaged =
      DataLoss(file.string() + ": allowed: a public and a secret key of 40 characters, one a line");
  if (text.size() != expected || text[kZ85KeyChars] != '\n' || text.back() != '\n') return damaged;
  KeyPair pair{text.substr(0, kZ85KeyChars), text.substr(kZ85KeyChars + 1, kZ85KeyChars)};
  std::array<char, kZ85KeyChars + 1> derived{};
  if (zmq_curve_public(derived.data(), pair.secret_key.c_str()) != 0 ||
      pair.public_key != derived.data()) {
    return damaged.WithContext("the keys do not belong together");
  }
  return pair;
}

std::filesystem::path FileOf(const std::filesystem::path& folder, const std::string& role) {
  return folder / (role + ".key");
}

Status CheckRoles(const std::vector<std::string>& roles) {
  for (const std::string& role : roles) {
    if (role == "broker" || role == "actor" || role == "learner" || role == "tool") continue;
    return InvalidArgument("role '" + role + "'; allowed: broker, actor, learner, tool");
  }
  return Status::Ok();
}

Result<std::string> NewKeyFile() {
  THRESHER_ASSIGN_OR_RETURN(KeyPair pair, GenerateKeyPair());
  return pair.public_key + "\n" + pair.secret_key + "\n";
}

}  // namespace

Result<KeyPair> GenerateKeyPair() {
  std::array<char, kZ85KeyChars + 1> public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    return InternalError(std::string("curve keys: ") + zmq_strerror(zmq_errno()));
  }
  return KeyPair{public_key.data(), secret_key.data()};
}

Result<KeyRing> LoadOrCreateKeys(const std::filesystem::path& folder) {
  THRESHER_RETURN_IF_ERROR(MakePrivateFolder(folder));
  KeyRing ring;
  const std::pair<const char*, KeyPair*> roles[] = {{"broker", &ring.broker},
                                                    {"actor", &ring.actor},
                                                    {"learner", &ring.learner},
                                                    {"tool", &ring.tool}};
  for (auto [role, pair] : roles) {
    std::filesystem::path file = FileOf(folder, role);
    THRESHER_ASSIGN_OR_RETURN(std::string text, LoadOrCreateSecret(file, NewKeyFile));
    THRESHER_ASSIGN_OR_RETURN(*pair, ParseKeyFile(file, text));
  }
  return ring;
}

Result<std::vector<std::string>> MakeKeys(const std::filesystem::path& folder,
                                          const std::vector<std::string>& roles, bool replace) {
  THRESHER_RETURN_IF_ERROR(CheckRoles(roles));
  THRESHER_RETURN_IF_ERROR(MakePrivateFolder(folder));
  for (const std::string& role : roles) {
    const std::filesystem::path file = FileOf(folder, role);
    if (!replace && Exists(file)) return AlreadyExists(file.string() + " is there");
  }
  std::vector<std::string> made;
  for (const std::string& role : roles) {
    THRESHER_ASSIGN_OR_RETURN(const std::string text, NewKeyFile());
    const Status written = WriteFileAtomic(FileOf(folder, role), text, 0600);
    if (!written.ok()) return Unavailable(written.message());
    made.push_back(text.substr(0, kZ85KeyChars));
  }
  return made;
}

}  // namespace thresher::net
