#include "broker/identities.h"

#include "broker/run_files.h"
#include "common/data/files.h"

namespace thresher::broker {
namespace {

constexpr const char* kRunFile = "identity.json";
constexpr const char* kOthers = "identities";

}  // namespace

Result<Identities> Identities::Open(const std::filesystem::path& run, bool strict) {
  Identities identities(run, strict);
  THRESHER_ASSIGN_OR_RETURN(const std::optional<RunIdentity> own, ReadIdentity(run / kRunFile));
  if (own) identities.SetRun(*own);
  for (const std::filesystem::path name : NamesIn(run / kOthers)) {
    if (name.extension() != ".json") continue;  // half-written under another name
    THRESHER_ASSIGN_OR_RETURN(std::optional<RunIdentity> other, ReadIdentity(run / kOthers / name));
    if (other) identities.others_.emplace(other->Hash().ToString(), *other);
  }
  return identities;
}

Result<std::string> Identities::Admit(const RunIdentity& identity) {
  if (!run_) {
    THRESHER_RETURN_IF_ERROR(WriteIdentity(folder_ / kRunFile, identity));
    SetRun(identity);
    return std::string();
  }
  if (Admitted(identity.Hash())) return std::string();
  std::string difference = run_->Difference(identity);
  if (!run_->DiffersInNumericsAlone(identity)) return difference;
  if (strict_) return difference + " (admitted where engine.strict is false)";
  if (others_.size() >= kMost) {
    return difference + " (" + std::to_string(kMost) + " other numerics were admitted already)";
  }
  const std::string hash = identity.Hash().ToString();
  THRESHER_RETURN_IF_ERROR(CreateDirectories(folder_ / kOthers));
  THRESHER_RETURN_IF_ERROR(WriteIdentity(folder_ / kOthers / (hash + ".json"), identity));
  others_.emplace(hash, identity);
  return std::string();
}

bool Identities::Admitted(const Hash128& hash) const {
  return (run_ && run_hash_ == hash) || others_.contains(hash.ToString());
}

}  // namespace thresher::broker
