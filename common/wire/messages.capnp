@0x98e3df3ca90e5332;
# The envelope of a frame (common/wire/frame.h) and its messages (common/wire/messages.h). Encoded
# trajectories and weight chunks are payload segments behind the envelope, not fields of it.

using Cxx = import "/capnp/c++.capnp";
using Types = import "types.capnp";
$Cxx.namespace("thresher::wire::schema");

enum PeerRole {
  actor @0;
  learner @1;
  tool @2;
}

enum Purpose {
  train @0;
  supervised @1;
  evaluate @2;
  branch @3;
}

enum UploadVerdict {
  accepted @0;
  duplicate @1;
  conflict @2;
  refused @3;
}

struct WeightsManifest {
  version @0 :Types.PolicyVersion;
  bytes @1 :UInt64;
  chunkBytes @2 :UInt32;
  hash @3 :Types.Hash128;
  chunkHashes @4 :List(UInt64);
}

struct Lease {
  fence @0 :UInt64;
  purpose @1 :Purpose;
  stream @2 :Types.Stream;
  island @3 :UInt16;
  item @4 :UInt64;
  firstSample @5 :UInt32;
  samples @6 :UInt32;
  groupSize @7 :UInt32;
  pinned @8 :Bool;
  lineage @9 :UInt32;
  step @10 :UInt32;
  temperature @11 :Float32;
  maxNewTokens @12 :UInt32;
}

struct Credit {
  number @0 :UInt64;
  bytes @1 :UInt64;
}

struct Hello {
  role @0 :PeerRole;
  index @1 :UInt32;
  world @2 :UInt32;
  name @3 :Text;
  pid @4 :UInt32;
  identity @5 :Types.RunIdentity;
  hasWeights @6 :Bool;
  weights @7 :Types.PolicyVersion;
  weightsHash @8 :Types.Hash128;
}

struct Heartbeat {
  progress @0 :UInt64;
  longestStepMs @1 :UInt32;
  hasWeights @2 :Bool;
  weights @3 :Types.PolicyVersion;
  weightsHash @4 :Types.Hash128;
  held @5 :List(UInt64);
  counters @6 :List(Types.Metric);
  credit @7 :Credit;
  kept @8 :List(UInt64);
  waiting @9 :Text;
}

struct Goodbye {
  reason @0 :Text;
  lostTokens @1 :UInt64;
  continuedTokens @2 :UInt64;
}

struct LeaseRequest {
  request @0 :UInt64;
  maxSamples @1 :UInt32;
  hasWeights @2 :Bool;
  weights @3 :Types.PolicyVersion;
}

struct LeaseRelease {
  fence @0 :UInt64;
  unfinished @1 :List(Types.TrajectoryId);
  reason @2 :Text;
}

struct Upload {                  # payload: the records
  upload @0 :UInt64;
  fences @1 :List(UInt64);
}

struct SampleFailed {
  fence @0 :UInt64;
  id @1 :Types.TrajectoryId;
  reason @2 :Text;
  detail @3 :Text;
}

struct FetchLeaf {
  request @0 :UInt64;
  lineage @1 :UInt32;
  step @2 :UInt32;
  leaf @3 :UInt32;
  part @4 :UInt32;
}

struct ActorMismatch {
  actor @0 :UInt32;
  tokens @1 :UInt64;
}

struct StepDone {
  lineage @0 :UInt32;
  step @1 :UInt32;
  batchDigest @2 :Types.Hash128;
  chain @3 :Types.Hash128;
  stateHash @4 :Types.Hash128;
  trainedTokens @5 :UInt64;
  auditedTokens @6 :UInt64;
  mismatchedTokens @7 :UInt64;
  metrics @8 :List(Types.Metric);
  mismatchesByActor @9 :List(ActorMismatch);
}

struct Publish {
  manifest @0 :WeightsManifest;
}

struct CheckpointDone {
  lineage @0 :UInt32;
  step @1 :UInt32;
  folder @2 :Text;
  manifestHash @3 :Types.Hash128;
  chain @4 :Types.Hash128;
}

struct ManifestGet {
  version @0 :Types.PolicyVersion;
}

struct ChunkGet {
  version @0 :Types.PolicyVersion;
  index @1 :UInt32;
}

struct Chunk {                   # payload: the bytes
  version @0 :Types.PolicyVersion;
  index @1 :UInt32;
}

struct Welcome {
  epoch @0 :UInt64;
  runSeed @1 :UInt64;
  heartbeatMs @2 :UInt32;
  hasWeights @3 :Bool;
  weights @4 :WeightsManifest;
  committedSteps @5 :UInt32;
  durableSteps @6 :UInt32;
  credit @7 :Credit;
  keepUntilConsumed @8 :Bool;
}

struct Refused {
  reason @0 :Text;
}

struct Rejoin {
}

struct LeaseGrant {              # payload: the prefixes
  request @0 :UInt64;
  leases @1 :List(Lease);
  finished @2 :Bool;
}

struct UploadAck {
  upload @0 :UInt64;
  verdicts @1 :List(UploadVerdict);
  reasons @2 :List(Text);
  credit @3 :Credit;
}

struct LeafPart {                # payload: the records
  request @0 :UInt64;
  lineage @1 :UInt32;
  step @2 :UInt32;
  leaf @3 :UInt32;
  part @4 :UInt32;
  parts @5 :UInt32;
  batchDigest @6 :Types.Hash128;
  batchTrajectories @7 :UInt64;
  batchLossTokens @8 :UInt64;
}

struct NotReady {
  request @0 :UInt64;
}

struct StepAck {
  step @0 :UInt32;
}

struct PublishAck {
  version @0 :Types.PolicyVersion;
  ok @1 :Bool;
  reason @2 :Text;
}

struct CheckpointAck {
  step @0 :UInt32;
  keep @1 :List(UInt32);
}

struct Announce {
  manifest @0 :WeightsManifest;
}

struct HeartbeatAck {
  hasWeights @0 :Bool;
  newest @1 :Types.PolicyVersion;
  credit @2 :Credit;
}

struct Shutdown {
  reason @0 :Text;
  checkpointFirst @1 :Bool;
  keep @2 :List(UInt32);
}

struct Consumed {
  uploads @0 :List(UInt64);
}

struct RanksMeet {
  job @0 :Text;
  world @1 :UInt32;
  hello @2 :Data;
}

struct RanksMet {
  job @0 :Text;
  hellos @1 :List(Data);
}

struct Envelope {
  runId @0 :Types.Hash128;
  incarnation @1 :UInt64;
  sequence @2 :UInt64;
  payloadBytes @3 :List(UInt32);  # length of each payload segment behind the envelope
  # In the order of the variant Message; the order is the kind byte of the frame header.
  union {
    hello @4 :Hello;
    heartbeat @5 :Heartbeat;
    goodbye @6 :Goodbye;
    leaseRequest @7 :LeaseRequest;
    leaseRelease @8 :LeaseRelease;
    upload @9 :Upload;
    sampleFailed @10 :SampleFailed;
    fetchLeaf @11 :FetchLeaf;
    stepDone @12 :StepDone;
    publish @13 :Publish;
    checkpointDone @14 :CheckpointDone;
    manifestGet @15 :ManifestGet;
    chunkGet @16 :ChunkGet;
    chunk @17 :Chunk;
    welcome @18 :Welcome;
    refused @19 :Refused;
    rejoin @20 :Rejoin;
    leaseGrant @21 :LeaseGrant;
    uploadAck @22 :UploadAck;
    leafPart @23 :LeafPart;
    notReady @24 :NotReady;
    stepAck @25 :StepAck;
    publishAck @26 :PublishAck;
    checkpointAck @27 :CheckpointAck;
    announce @28 :Announce;
    heartbeatAck @29 :HeartbeatAck;
    shutdown @30 :Shutdown;
    weightsManifest @31 :WeightsManifest;
    ranksMeet @32 :RanksMeet;
    ranksMet @33 :RanksMet;
    consumed @34 :Consumed;
  }
}
