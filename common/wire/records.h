#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/ids.h"
#include "common/base/shared_bytes.h"
#include "common/base/status.h"
#include "common/data/trajectory.h"
#include "common/data/trajectory_store.h"
#include "common/wire/messages.h"

namespace thresher::wire {

// ---- trajectories: the bytes on the wire, in segments on disk and in batches are the same.
std::string EncodeTrajectory(const Trajectory& trajectory);
// Error: kDataLoss (malformed, or Trajectory::Validate fails).
Result<Trajectory> DecodeTrajectory(std::string_view bytes);

// An encoded trajectory read where its bytes lie: its long arrays are not copied, unless the bytes
// do not begin at a word. Takes and refuses exactly what DecodeTrajectory does. Keeps the bytes.
class TrajectoryView {
 public:
  static Result<TrajectoryView> Open(SharedBytes bytes);

  const Trajectory& fields() const { return fields_; }  // all but the long arrays, which are empty
  const TrajectoryArrays& arrays() const { return arrays_; }
  operator TrajectoryRef() const { return {fields_, arrays_}; }
  // Where its arrays of numbers lie in the bytes.
  ArrayRanges Ranges() const;

 private:
  SharedBytes bytes_;
  Trajectory fields_;
  TrajectoryArrays arrays_;  // in bytes_
};

// ---- journal records (broker/README.md tells when each is written). `journal/` is the ledger's
// history; the trajectories themselves lie in `trajectories/` and are named by content hash.

// The closed list of reasons for which a sample leaves without being trained or evaluated.
enum class DropReason : std::uint8_t {
  kStale = 0, kZeroVariance = 1, kOverLong = 2, kPromptTooLong = 3, kGraderFailure = 4,
  kCancelled = 5, kSurplus = 6, kNotSelected = 7, kDeadline = 8,
};
inline constexpr int kDropReasonCount = 9;
const char* DropReasonName(DropReason reason);
Result<DropReason> ParseDropReason(std::string_view name);

struct EpochStarted {          // a broker start
  BrokerEpoch epoch;
  Incarnation incarnation;
  Hash128 run_id;
  Hash128 run_identity;
  friend bool operator==(const EpochStarted&, const EpochStarted&) = default;
};
struct ItemsIssued {           // samples [0, samples) of items [first_item, first_item + items)
  Stream stream = Stream::kTrain;
  std::uint16_t island = 0;
  std::uint64_t first_item = 0;
  std::uint32_t items = 0;
  std::uint32_t samples = 0;
  std::uint32_t step = 0;      // train, supervised: the step they are for
  std::uint32_t round = 0;     // eval: the round
  PolicyVersion version;       // pinned version (train, eval)
  friend bool operator==(const ItemsIssued&, const ItemsIssued&) = default;
};
struct SampleAccepted {
  TrajectoryId id;
  Hash128 content_hash;        // Trajectory::ContentHash
  std::uint32_t actor = 0;
  Incarnation incarnation;
  PolicyVersion oldest_version;
  double reward = 0;
  std::uint32_t loss_tokens = 0;
  Hash128 instance_hash;
  OutcomeKind outcome = OutcomeKind::kScored;
  bool nondeterministic = false;
  bool truncated = false;      // ended at the limit of its length
  friend bool operator==(const SampleAccepted&, const SampleAccepted&) = default;
};
struct SampleDropped {
  TrajectoryId id;
  DropReason reason = DropReason::kCancelled;
  std::uint32_t step = 0;
  friend bool operator==(const SampleDropped&, const SampleDropped&) = default;
};
struct BatchComposed {         // canonical order
  std::uint32_t lineage = 0;
  std::uint32_t step = 0;
  Hash128 digest;              // HashBatch of the entries
  std::vector<TrajectoryId> ids;
  std::uint64_t loss_tokens = 0;
  friend bool operator==(const BatchComposed&, const BatchComposed&) = default;
};
struct StepCommitted {
  std::uint32_t lineage = 0;
  std::uint32_t step = 0;
  Hash128 batch_digest;
  Hash128 chain;
  Hash128 state_hash;
  std::uint64_t trained_tokens = 0;
  std::uint64_t audited_tokens = 0;
  std::uint64_t mismatched_tokens = 0;
  bool retrained = false;      // after a learner recovery; equal hashes required
  friend bool operator==(const StepCommitted&, const StepCommitted&) = default;
};
struct VersionPublished {
  PolicyVersion version;
  Hash128 hash;
  std::uint64_t bytes = 0;
  friend bool operator==(const VersionPublished&, const VersionPublished&) = default;
};
struct StepsDurable {          // a checkpoint contains steps [0, step)
  std::uint32_t lineage = 0;
  std::uint32_t step = 0;
  std::string folder;
  Hash128 manifest_hash;
  Hash128 chain;
  friend bool operator==(const StepsDurable&, const StepsDurable&) = default;
};
struct RoundEvaluated {        // all samples of an evaluation round are in
  std::uint32_t round = 0;
  PolicyVersion version;
  Hash128 digest;              // HashBatch over its samples in canonical order
  std::uint32_t items = 0;
  std::uint32_t samples = 0;
  friend bool operator==(const RoundEvaluated&, const RoundEvaluated&) = default;
};
struct RunFinished {
  std::uint32_t steps = 0;
  Hash128 final_weights;
  friend bool operator==(const RunFinished&, const RunFinished&) = default;
};

using JournalRecord =
    std::variant<EpochStarted, ItemsIssued, SampleAccepted, SampleDropped, BatchComposed,
                 StepCommitted, VersionPublished, StepsDurable, RoundEvaluated, RunFinished>;

std::string EncodeJournalRecord(const JournalRecord& record);
// The same behind what `out` has.
void AppendJournalRecord(std::string& out, const JournalRecord& record);
// Error: kDataLoss (malformed, unknown kind, a value out of range).
Result<JournalRecord> DecodeJournalRecord(std::string_view bytes);
const char* JournalRecordName(const JournalRecord& record);

// Digest of a batch or evaluation round: over (id, content hash) pairs in canonical order.
// XXH3-128 over the text "thresher.batch.1", the number of entries, then per entry stream, island,
// item, sample, hash high, hash low; every number 8 bytes, little-endian.
struct BatchEntry {
  TrajectoryId id;
  Hash128 content_hash;
  friend bool operator==(const BatchEntry&, const BatchEntry&) = default;
};
Hash128 HashBatch(const std::vector<BatchEntry>& entries);
// chain(k) = HashChain(chain(k - 1), digest(k)); chain before step 0 is zero.
// XXH3-128 over the text "thresher.chain.1", previous (high, low) and digest (high, low).
Hash128 HashChain(const Hash128& previous, const Hash128& digest);

}  // namespace thresher::wire
