#include "launch/audit_files.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base/hash.h"
#include "common/data/byte_order.h"
#include "common/data/files.h"
#include "common/data/folder.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

std::uint32_t LossTokens(const Trajectory& t) {
  std::uint32_t tokens = 0;
  for (const Segment& s : t.segments) tokens += s.in_loss ? s.end - s.begin : 0;
  return tokens;
}

// The weights in a published file stand behind its header (8 bytes of length, then that much text),
// in the order in which the learner hashes them.
Hash128 HashOfElements(std::string_view blob) {
  if (blob.size() < 8) return {};
  std::uint64_t header = LoadLittle<std::uint64_t>(blob.data());
  if (header > blob.size() - 8) return {};
  return HashBytes128(AsBytes(blob.substr(8 + header)));
}

}  // namespace

// RUN/identities/HASH.json: one for each numerics that was admitted beside the run's.
void FileAudit::ReadOtherNumerics() {
  for (const std::string& file : NamesIn(run_ / "identities")) {
    auto text = ReadFile(run_ / "identities" / file);
    const json other = text.ok() ? json::parse(*text, nullptr, false) : json();
    const std::string name = std::filesystem::path(file).stem().string();
    const bool whole = other.is_object() && other.value("hash", json()) == json(name);
    findings_.Expect(whole,
                     "identities/" + name + ".json does not hold the identity it is named for");
    if (whole) other_numerics_.insert(name);
  }
}

void FileAudit::CheckTrajectories() {
  auto store = TrajectoryStoreReader::Open(run_ / "trajectories");
  if (!store.ok()) {
    findings_.Expect(facts_.accepted.empty(), "trajectories: " + store.status().ToString());
    return;
  }
  std::unordered_set<TrajectoryId> seen;
  Status status =
      (*store)->ReadAll([&](const TrajectoryStoreReader::Entry& entry, std::string_view bytes) {
        ++stored_;
        CheckStored(entry, bytes);
        // One whose place in a failing store was forgotten may have come, and been stored, again.
        findings_.Expect(seen.insert(entry.id).second || may_be_left_out_,
                         "trajectories: " + entry.id.ToString() + " is stored twice");
        return Status::Ok();
      });
  if (!status.ok()) findings_.Problem("trajectories: " + status.ToString());
  for (const TrajectoryId& id : facts_.issued) {
    if (!facts_.accepted.contains(id)) continue;
    // Retention deletes what is settled.
    const bool may_be_deleted = (*store)->deleted_some() && facts_.fate.contains(id);
    if (may_be_deleted || seen.contains(id)) continue;
    ++not_stored_;
    findings_.Expect(may_be_left_out_,
                     "trajectories: " + id.ToString() + " was accepted and is missing");
  }
}

bool FileAudit::CheckSettled(const TrajectoryStoreReader::Entry& entry, const Trajectory& t) {
  if (facts_.base == nullptr) return false;
  if (facts_.base->dedup().Forgotten(entry.id)) return true;
  const auto first = facts_.base->dedup().Find(entry.id);
  if (!first) return false;
  findings_.Expect(t.ContentHash() == first->content_hash,
                   "trajectories: " + entry.id.ToString() + " is not what was accepted");
  return true;
}

void FileAudit::CheckStored(const TrajectoryStoreReader::Entry& entry, std::string_view bytes) {
  const std::string name = "trajectories: " + entry.id.ToString();
  auto trajectory = wire::DecodeTrajectory(bytes);
  if (!trajectory.ok()) {
    findings_.Problem(name + ": " + trajectory.status().ToString());
    return;
  }
  findings_.Expect(trajectory->id == entry.id, name + " holds " + trajectory->id.ToString());
  if (!other_numerics_.contains(trajectory->run_identity.ToString())) {
    if (run_identity_.IsZero()) run_identity_ = trajectory->run_identity;
    findings_.Expect(trajectory->run_identity == run_identity_ &&
                         (facts_.run_identity.IsZero() || facts_.run_identity == run_identity_),
                     name + " has another run identity");
  }
  auto accepted = facts_.accepted.find(entry.id);
  if (accepted == facts_.accepted.end()) {
    if (CheckSettled(entry, *trajectory)) return;
    // Bytes are written before the record that accepts them: while a run goes on, and after a kill,
    // the last ones may stand here alone.
    bool open =
        !facts_.finished && facts_.issued.contains(entry.id) && !facts_.fate.contains(entry.id);
    findings_.Expect(open, name + " is stored but was never accepted");
    return;
  }
  bool same = trajectory->ContentHash() == accepted->second.content_hash &&
              entry.content_hash == accepted->second.content_hash;
  findings_.Expect(same, name + " is not what the journal accepted: its content hash differs");
  if (same && !facts_.from_base.contains(entry.id))
    CheckAgainstJournal(name, *trajectory, accepted->second);
}

void FileAudit::CheckAgainstJournal(const std::string& name, const Trajectory& t,
                                    const wire::SampleAccepted& r) {
  auto expect = [&](bool holds, const char* field) {
    findings_.Expect(holds, name + ": the journal has another " + field);
  };
  expect(std::bit_cast<std::uint64_t>(t.outcome.reward) == std::bit_cast<std::uint64_t>(r.reward),
         "reward");
  expect(t.outcome.kind == r.outcome, "outcome");
  expect(t.outcome.nondeterministic == r.nondeterministic, "mark of nondeterminism");
  expect((t.finish == FinishReason::kLength) == r.truncated, "mark of truncation");
  expect(t.OldestVersion() == r.oldest_version, "oldest version");
  expect(t.instance_hash == r.instance_hash, "instance");
  expect(LossTokens(t) == r.loss_tokens, "number of loss tokens");
  if (may_be_left_out_) return;  // a later copy, of another actor, may be the one that was stored
  expect(t.actor.value == r.actor, "actor");
  expect(t.incarnation == r.incarnation, "incarnation of the actor");
}

void FileAudit::CheckWeights() {
  for (const auto& [version, record] : facts_.published) {
    std::filesystem::path file = run_ / "weights" / (version.ToString() + ".safetensors");
    if (Exists(file)) CheckWeightsFile(record, file);
  }
}

void FileAudit::CheckWeightsFile(const wire::VersionPublished& record,
                                 const std::filesystem::path& file) {
  const std::string name = "weights: " + file.filename().string();
  auto blob = MappedFile::Open(file);
  if (!blob.ok()) {
    findings_.Problem(name + ": " + blob.status().ToString());
    return;
  }
  findings_.Expect(blob->bytes().size() == record.bytes,
                   name + " has " + std::to_string(blob->bytes().size()) +
                       " bytes, published with " + std::to_string(record.bytes));
  findings_.Expect(HashText128(blob->bytes()) == record.hash, name + " is not what was published");
  std::uint32_t step = record.version.step;
  if (step == 0 || step > facts_.commits.size() || step <= facts_.first_step) return;
  findings_.Expect(
      HashOfElements(blob->bytes()) == facts_.commits[step - 1].state_hash,
      name + " is not the state that step " + std::to_string(step - 1) + " was committed with");
}

void FileAudit::CheckCheckpoints() {
  std::unordered_set<std::string> recorded;
  for (const wire::StepsDurable& r : facts_.durable) {
    const std::string name = "checkpoint " + r.folder;
    char expected[64];
    std::snprintf(expected, sizeof expected, "checkpoints/step_%06u", r.step);
    findings_.Expect(r.folder == expected, name + " is not named " + expected);
    recorded.insert(expected);
    if (!Exists(run_ / expected)) continue;  // pruned, as configured
    auto manifest = VerifyFolder(run_ / expected);
    if (!manifest.ok()) {
      findings_.Problem(name + ": " + manifest.status().ToString());
    } else {
      findings_.Expect(manifest->hash == r.manifest_hash,
                       name + ": MANIFEST.json is not the one that was recorded");
    }
  }
  if (!facts_.finished) return;
  // A learner that was killed between a checkpoint and its report leaves a gap that the next one
  // covers; without recoveries there is none.
  bool undisturbed = facts_.epoch == 1 && facts_.retrained == 0;
  const std::uint32_t known = facts_.base == nullptr ? 0 : facts_.base->durable_steps();
  for (std::uint32_t s = known; s < plan_.total_steps(); ++s) {
    if (!plan_.Step(s).checkpoint_after || (!undisturbed && s + 1 < plan_.total_steps())) continue;
    char expected[64];
    std::snprintf(expected, sizeof expected, "checkpoints/step_%06u", s + 1);
    findings_.Expect(recorded.contains(expected),
                     std::string("checkpoint ") + expected + " was planned and never recorded");
  }
}

// The learner's line of each step against its commit. Lines may be missing (a full disk): they
// inform, they decide nothing.
void FileAudit::CheckMetrics() {
  auto lines = ReadFile(run_ / "metrics.jsonl");
  std::istringstream in(lines.ok() ? *lines : std::string());
  for (std::string text; std::getline(in, text);) {
    json line = json::parse(text, nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_unsigned()) continue;
    auto step = line["step"].get<std::uint64_t>();
    if (step >= facts_.commits.size() || step < facts_.first_step) continue;
    const wire::StepCommitted& r = facts_.commits[step];
    const std::string name = "metrics.jsonl: step " + std::to_string(step);
    auto same = [&](const char* key, const json& value) {
      findings_.Expect(!line.contains(key) || line[key] == value,
                       name + ": " + key + " is not the committed one");
    };
    same("state_hash", r.state_hash.ToString());
    same("trained_tokens", r.trained_tokens);
    same("audited_tokens", r.audited_tokens);
    same("mismatched_tokens", r.mismatched_tokens);
  }
}

void FileAudit::CheckSummary() {
  auto text = ReadFile(run_ / "summary.json");
  if (!text.ok()) return;  // written at the very end
  json summary = json::parse(*text, nullptr, false);
  if (!summary.is_object()) {
    findings_.Problem("summary.json: not a summary");
    return;
  }
  if (!summary.contains("finished") || summary["finished"] != true) return;
  findings_.Expect(facts_.finished.has_value(),
                   "summary.json says that the run finished; the journal does not");
  const json faults = summary.contains("faults") ? summary["faults"] : json::object();
  bool epochs = !faults.is_object() || !faults.contains("broker_starts") ||
                faults["broker_starts"] == facts_.epoch;
  findings_.Expect(epochs, "summary.json counts other broker starts than the journal (" +
                               std::to_string(facts_.epoch) + ")");
}

}  // namespace thresher::launch
