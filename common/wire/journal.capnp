@0x9f941f66597280a2;
# Records of the journal (common/wire/records.h), in the order of the variant JournalRecord.

using Cxx = import "/capnp/c++.capnp";
using Types = import "types.capnp";
$Cxx.namespace("thresher::wire::schema");

enum DropReason {
  stale @0;
  zeroVariance @1;
  overLong @2;
  promptTooLong @3;
  graderFailure @4;
  cancelled @5;
  surplus @6;
  notSelected @7;
  deadline @8;
}

struct EpochStarted {
  epoch @0 :UInt64;
  incarnation @1 :UInt64;
  runId @2 :Types.Hash128;
  runIdentity @3 :Types.Hash128;
}

struct ItemsIssued {
  stream @0 :Types.Stream;
  island @1 :UInt16;
  firstItem @2 :UInt64;
  items @3 :UInt32;
  samples @4 :UInt32;
  step @5 :UInt32;
  round @6 :UInt32;
  version @7 :Types.PolicyVersion;
}

struct SampleAccepted {
  id @0 :Types.TrajectoryId;
  contentHash @1 :Types.Hash128;
  actor @2 :UInt32;
  incarnation @3 :UInt64;
  oldestVersion @4 :Types.PolicyVersion;
  reward @5 :Float64;
  lossTokens @6 :UInt32;
  instanceHash @7 :Types.Hash128;
  outcome @8 :Types.OutcomeKind;
  nondeterministic @9 :Bool;
  truncated @10 :Bool;
}

struct SampleDropped {
  id @0 :Types.TrajectoryId;
  reason @1 :DropReason;
  step @2 :UInt32;
}

struct BatchComposed {
  lineage @0 :UInt32;
  step @1 :UInt32;
  digest @2 :Types.Hash128;
  ids @3 :List(Types.TrajectoryId);
  lossTokens @4 :UInt64;
}

struct StepCommitted {
  lineage @0 :UInt32;
  step @1 :UInt32;
  batchDigest @2 :Types.Hash128;
  chain @3 :Types.Hash128;
  stateHash @4 :Types.Hash128;
  trainedTokens @5 :UInt64;
  auditedTokens @6 :UInt64;
  mismatchedTokens @7 :UInt64;
  retrained @8 :Bool;
}

struct VersionPublished {
  version @0 :Types.PolicyVersion;
  hash @1 :Types.Hash128;
  bytes @2 :UInt64;
}

struct StepsDurable {
  lineage @0 :UInt32;
  step @1 :UInt32;
  folder @2 :Text;
  manifestHash @3 :Types.Hash128;
  chain @4 :Types.Hash128;
}

struct RoundEvaluated {
  round @0 :UInt32;
  version @1 :Types.PolicyVersion;
  digest @2 :Types.Hash128;
  items @3 :UInt32;
  samples @4 :UInt32;
}

struct RunFinished {
  steps @0 :UInt32;
  finalWeights @1 :Types.Hash128;
}

struct JournalRecord {
  union {
    epochStarted @0 :EpochStarted;
    itemsIssued @1 :ItemsIssued;
    sampleAccepted @2 :SampleAccepted;
    sampleDropped @3 :SampleDropped;
    batchComposed @4 :BatchComposed;
    stepCommitted @5 :StepCommitted;
    versionPublished @6 :VersionPublished;
    stepsDurable @7 :StepsDurable;
    roundEvaluated @8 :RoundEvaluated;
    runFinished @9 :RunFinished;
  }
}
