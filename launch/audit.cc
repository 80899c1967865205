#include "launch/audit.h"

#include <map>
#include <optional>
#include <set>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>

#include "common/base/hash.h"
#include "common/config/config.h"
#include "common/config/plan.h"
#include "common/data/files.h"
#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"

namespace thresher::launch {
namespace {

using wire::BatchEntry;

enum class Fate : std::uint8_t { kTrained, kEvaluated, kDropped };
constexpr const char* kFateNames[] = {"trained", "evaluated", "dropped"};

using StepKey = std::pair<std::uint32_t, std::uint32_t>;  // lineage, step

class Auditor {
 public:
  Auditor(std::filesystem::path run, const Config& config)
      : run_(std::move(run)), config_(config), plan_(config) {}

  AuditReport Audit() {
    ReadJournal();
    CheckEnd();
    ReadStore();
    CheckWeights();
    Count();
    return std::move(report_);
  }

 private:
  void Problem(const std::string& text) {
    if (report_.problems.size() < AuditReport::kMaxProblems) report_.problems.push_back(text);
    ++report_.problem_count;
  }
  void Expect(bool holds, const std::string& text) {
    if (!holds) Problem(text);
  }
  std::string At(const std::string& what) const {
    return "journal record " + std::to_string(sequence_) + ": " + what;
  }

  void ReadJournal() {
    Status status = ReadRecordLog(run_ / "journal", [&](const LogRecord& record) {
      sequence_ = record.sequence;
      ++report_.journal_records;
      auto decoded = wire::DecodeJournalRecord(record.payload);
      if (!decoded.ok()) {
        Problem(At(decoded.status().ToString()));
        return Status::Ok();
      }
      std::visit([&](const auto& r) { On(r); }, *decoded);
      return Status::Ok();
    });
    if (!status.ok()) Problem("journal: " + status.ToString());
  }

  void On(const wire::EpochStarted& r) {
    Expect(r.epoch.value == last_epoch_ + 1,
           At("broker epoch " + std::to_string(r.epoch.value) + " follows " +
              std::to_string(last_epoch_)));
    last_epoch_ = r.epoch.value;
    if (!run_id_) run_id_ = r.run_id;
    Expect(r.run_id == *run_id_, At("another run id " + r.run_id.ToString()));
  }

  void On(const wire::ItemsIssued& r) {
    for (std::uint64_t i = 0; i < r.items; ++i) {
      for (std::uint32_t s = 0; s < r.samples; ++s) {
        TrajectoryId id{r.stream, r.island, r.first_item + i, s};
        Expect(issued_.insert(id).second, At(id.ToString() + " issued twice"));
        if (r.stream == Stream::kTrain) required_version_[id] = r.version;
      }
    }
    if (r.stream == Stream::kEval) {
      auto& round = rounds_[r.round];
      round.version = r.version;
      for (std::uint64_t i = 0; i < r.items; ++i) round.items.insert(r.first_item + i);
    } else {
      CheckPlanned(r);
    }
  }

  void CheckPlanned(const wire::ItemsIssued& r) {
    if (r.step >= plan_.total_steps()) {
      Problem(At("items issued for step " + std::to_string(r.step) + " beyond the plan"));
      return;
    }
    StepPlan step = plan_.Step(r.step);
    bool inside = r.stream == step.stream && r.samples == step.samples &&
                  r.first_item >= step.first_item &&
                  r.first_item + r.items <= step.first_item + step.items;
    Expect(inside, At(std::string(StreamName(r.stream)) + " items " +
                      std::to_string(r.first_item) + "+" + std::to_string(r.items) +
                      " are not those the plan has for step " + std::to_string(r.step)));
  }

  void On(const wire::SampleAccepted& r) {
    const std::string name = r.id.ToString();
    Expect(issued_.contains(r.id), At(name + " accepted but never issued"));
    Expect(accepted_.emplace(r.id, r).second, At(name + " accepted twice"));
    auto& seen = r.id.stream == Stream::kEval ? evaluated_instances_ : trained_instances_;
    seen.insert(r.instance_hash.ToString());
    report_.nondeterministic += r.nondeterministic;
  }

  void Settle(const TrajectoryId& id, Fate fate) {
    auto [entry, fresh] = fate_.emplace(id, fate);
    if (!issued_.contains(id)) Problem(At(id.ToString() + " " + kFateNames[int(fate)] +
                                          " but never issued"));
    if (!fresh) {
      Problem(At(id.ToString() + " " + kFateNames[int(fate)] + ", but was " +
                 kFateNames[int(entry->second)] + " already"));
    }
  }

  void On(const wire::SampleDropped& r) { Settle(r.id, Fate::kDropped); }

  // Digest of samples as they were accepted; names those that were not.
  Hash128 DigestOf(const std::vector<TrajectoryId>& ids) {
    std::vector<BatchEntry> entries;
    for (const TrajectoryId& id : ids) {
      auto found = accepted_.find(id);
      if (found == accepted_.end()) {
        Problem(At(id.ToString() + " is used but was never accepted"));
        continue;
      }
      entries.push_back({id, found->second.content_hash});
    }
    return wire::HashBatch(entries);
  }

  void On(const wire::BatchComposed& r) {
    const std::string name = "batch of step " + std::to_string(r.step);
    StepKey key{r.lineage, r.step};
    Expect(batches_.emplace(key, r).second, At(name + " composed twice"));
    Expect(DigestOf(r.ids) == r.digest, At(name + ": digest does not match its samples"));
    std::uint64_t loss_tokens = 0;
    for (std::size_t i = 0; i < r.ids.size(); ++i) {
      if (i > 0) Expect(r.ids[i - 1] < r.ids[i], At(name + ": " + r.ids[i].ToString() +
                                                    " is out of order"));
      auto found = accepted_.find(r.ids[i]);
      if (found != accepted_.end()) loss_tokens += found->second.loss_tokens;
      auto fate = fate_.find(r.ids[i]);
      Expect(fate == fate_.end() || fate->second != Fate::kDropped,
             At(name + ": " + r.ids[i].ToString() + " was dropped"));
    }
    Expect(loss_tokens == r.loss_tokens,
           At(name + ": " + std::to_string(r.loss_tokens) + " loss tokens recorded, its samples have " +
              std::to_string(loss_tokens)));
  }

  void On(const wire::StepCommitted& r) {
    const std::string name = "step " + std::to_string(r.step);
    StepKey key{r.lineage, r.step};
    auto batch = batches_.find(key);
    if (batch == batches_.end()) {
      Problem(At(name + " committed without a batch"));
      return;
    }
    Expect(batch->second.digest == r.batch_digest, At(name + " trained another batch"));
    auto [entry, fresh] = committed_.emplace(key, r);
    if (!fresh) {
      Expect(r.retrained, At(name + " committed twice"));
      Expect(entry->second.state_hash == r.state_hash && entry->second.chain == r.chain,
             At(name + " retrained to other weights"));
      return;
    }
    Expect(r.step == next_step_, At(name + " follows step " + std::to_string(next_step_) + " - 1"));
    next_step_ = r.step + 1;
    chain_ = wire::HashChain(chain_, r.batch_digest);
    chains_.push_back(chain_);
    Expect(r.chain == chain_, At(name + ": the chain of batches does not match"));
    report_.audited_tokens += r.audited_tokens;
    report_.mismatched_tokens += r.mismatched_tokens;
    for (const TrajectoryId& id : batch->second.ids) {
      Settle(id, Fate::kTrained);
      CheckStaleness(id, r.step);
    }
  }

  void CheckStaleness(const TrajectoryId& id, std::uint32_t step) {
    auto accepted = accepted_.find(id);
    if (id.stream != Stream::kTrain || accepted == accepted_.end()) return;
    PolicyVersion oldest = accepted->second.oldest_version;
    auto required = required_version_.find(id);
    bool exact = oldest.step == step && required != required_version_.end() &&
                 required->second == oldest;
    Expect(exact, At(id.ToString() + " trained in step " + std::to_string(step) +
                     " was generated by version " + oldest.ToString() +
                     "; mode sync allows staleness 0"));
  }

  void On(const wire::VersionPublished& r) {
    auto [entry, fresh] = published_.emplace(r.version, r);
    Expect(fresh || entry->second.hash == r.hash,
           At("version " + r.version.ToString() + " published with two hashes"));
  }

  void On(const wire::StepsDurable& r) {
    const std::string name = "checkpoint " + r.folder;
    if (r.step > chains_.size()) {
      Problem(At(name + " contains steps that were not committed"));
      return;
    }
    Hash128 expected = r.step == 0 ? Hash128{} : chains_[r.step - 1];
    Expect(r.chain == expected, At(name + ": its chain of batches does not match the journal's"));
    std::error_code error;
    if (!std::filesystem::exists(run_ / r.folder, error)) return;  // pruned, as configured
    auto manifest = VerifyFolder(run_ / r.folder);
    if (!manifest.ok()) {
      Problem(name + ": " + manifest.status().ToString());
    } else {
      Expect(*manifest == r.manifest_hash, At(name + ": its manifest has another hash"));
    }
  }

  void On(const wire::RoundEvaluated& r) {
    const std::string name = "evaluation round " + std::to_string(r.round);
    auto round = rounds_.find(r.round);
    if (round == rounds_.end()) {
      Problem(At(name + " evaluated but never issued"));
      return;
    }
    std::vector<TrajectoryId> ids;
    for (std::uint64_t item : round->second.items) {
      for (std::uint32_t s = 0; s < r.samples; ++s) ids.push_back({Stream::kEval, 0, item, s});
    }
    std::vector<TrajectoryId> present;
    for (const TrajectoryId& id : ids) {
      auto fate = fate_.find(id);
      if (fate != fate_.end() && fate->second == Fate::kDropped) continue;
      present.push_back(id);
      Settle(id, Fate::kEvaluated);
    }
    Expect(DigestOf(present) == r.digest, At(name + ": digest does not match its samples"));
    Expect(r.version == round->second.version, At(name + " is of another version"));
    Expect(round->second.items.size() == r.items,
           At(name + ": " + std::to_string(r.items) + " items recorded, " +
              std::to_string(round->second.items.size()) + " issued"));
  }

  void On(const wire::RunFinished& r) {
    Expect(!finished_, At("the run finished twice"));
    finished_ = r;
  }

  void CheckEnd() {
    report_.committed_steps = next_step_;
    report_.finished = finished_.has_value();
    if (!finished_) return;
    Expect(next_step_ == plan_.total_steps(),
           "the run finished after " + std::to_string(next_step_) + " of " +
               std::to_string(plan_.total_steps()) + " steps");
    PolicyVersion last{0, plan_.total_steps()};
    auto published = published_.find(last);
    Expect(published != published_.end() && published->second.hash == finished_->final_weights,
           "the final weights are not those of version " + last.ToString());
    for (const EvalRound& round : plan_.evals()) {
      Expect(rounds_.contains(round.round),
             "evaluation round " + std::to_string(round.round) + " was never issued");
    }
    for (const TrajectoryId& id : issued_) {
      Expect(fate_.contains(id), id.ToString() + " was issued and is unaccounted for at the end");
    }
  }

  void ReadStore() {
    auto store = TrajectoryStoreReader::Open(run_ / "trajectories");
    if (!store.ok()) {
      if (!accepted_.empty()) Problem("trajectories: " + store.status().ToString());
      return;
    }
    std::unordered_set<TrajectoryId> stored;
    Status status = (*store)->ReadAll([&](const TrajectoryStoreReader::Entry& entry,
                                          std::string_view bytes) {
      ++report_.stored_trajectories;
      CheckStored(entry, bytes);
      Expect(stored.insert(entry.id).second,
             "trajectories: " + entry.id.ToString() + " is stored twice");
      return Status::Ok();
    });
    if (!status.ok()) Problem("trajectories: " + status.ToString());
    for (const auto& [id, record] : accepted_) {
      Expect(stored.contains(id), "trajectories: " + id.ToString() + " was accepted and is missing");
    }
  }

  void CheckStored(const TrajectoryStoreReader::Entry& entry, std::string_view bytes) {
    const std::string name = "trajectories: " + entry.id.ToString();
    auto accepted = accepted_.find(entry.id);
    if (accepted == accepted_.end()) {
      Problem(name + " is stored but was never accepted");
      return;
    }
    auto trajectory = wire::DecodeTrajectory(bytes);
    if (!trajectory.ok()) {
      Problem(name + ": " + trajectory.status().ToString());
      return;
    }
    const wire::SampleAccepted& record = accepted->second;
    Expect(trajectory->id == entry.id, name + " holds " + trajectory->id.ToString());
    bool same = trajectory->ContentHash() == record.content_hash &&
                entry.content_hash == record.content_hash;
    Expect(same, name + " was altered: its content is not what was accepted");
    Expect(!same || (trajectory->outcome.reward == record.reward &&
                     trajectory->OldestVersion() == record.oldest_version &&
                     trajectory->instance_hash == record.instance_hash),
           name + ": the journal's reward, version or instance was altered");
  }

  void CheckWeights() {
    for (const auto& [version, record] : published_) {
      std::filesystem::path file =
          run_ / "weights" / (version.ToString() + ".safetensors");
      std::error_code error;
      if (!std::filesystem::exists(file, error)) continue;  // beyond weights.retain
      auto blob = ReadFile(file);
      if (!blob.ok()) {
        Problem("weights: " + blob.status().ToString());
      } else {
        Expect(HashText128(*blob) == record.hash,
               "weights: " + file.filename().string() + " is not what was published");
      }
    }
  }

  void Count() {
    for (const TrajectoryId& id : issued_) {
      auto& counts = report_.streams[static_cast<std::size_t>(id.stream)];
      ++counts.issued;
      counts.accepted += accepted_.contains(id);
      auto fate = fate_.find(id);
      if (fate == fate_.end()) {
        ++counts.held;
      } else {
        counts.trained += fate->second == Fate::kTrained;
        counts.evaluated += fate->second == Fate::kEvaluated;
        counts.dropped += fate->second == Fate::kDropped;
      }
    }
    for (const std::string& instance : evaluated_instances_) {
      report_.heldout_overlap += trained_instances_.contains(instance);
    }
    Expect(report_.heldout_overlap == 0, std::to_string(report_.heldout_overlap) +
                                             " evaluated instances were trained on");
  }

  struct Round {
    PolicyVersion version;
    std::set<std::uint64_t> items;
  };

  std::filesystem::path run_;
  Config config_;
  Plan plan_;
  AuditReport report_;
  std::uint64_t sequence_ = 0, last_epoch_ = 0;
  std::optional<Hash128> run_id_;
  std::set<TrajectoryId> issued_;
  std::unordered_map<TrajectoryId, PolicyVersion> required_version_;
  std::unordered_map<TrajectoryId, wire::SampleAccepted> accepted_;
  std::unordered_map<TrajectoryId, Fate> fate_;
  std::map<std::uint32_t, Round> rounds_;
  std::map<StepKey, wire::BatchComposed> batches_;
  std::map<StepKey, wire::StepCommitted> committed_;
  std::map<PolicyVersion, wire::VersionPublished> published_;
  std::vector<Hash128> chains_;  // after each committed step
  Hash128 chain_;
  std::uint32_t next_step_ = 0;
  std::optional<wire::RunFinished> finished_;
  std::unordered_set<std::string> trained_instances_, evaluated_instances_;
};

}  // namespace

Result<AuditReport> AuditRun(const std::filesystem::path& run) {
  std::error_code error;
  if (!std::filesystem::exists(run / "manifest.json", error)) {
    return NotFound(run.string() + ": not a run directory (no manifest.json)");
  }
  Config config = LoadConfig(run / "config.yaml", {});
  return Auditor(run, config).Audit();
}

}  // namespace thresher::launch
