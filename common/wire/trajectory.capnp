@0xb402a4a4a8dd962d;
# One sampled sequence (common/data/trajectory.h). Arrays of tokens and log-probabilities travel as
# Data: 4 bytes an element, little-endian.

using Cxx = import "/capnp/c++.capnp";
using Types = import "types.capnp";
$Cxx.namespace("thresher::wire::schema");

enum Role {
  prompt @0;
  policy @1;
  environment @2;
  tool @3;
}

enum FinishReason {
  stop @0;
  length @1;
  reference @2;
  cancelled @3;
  error @4;
}

struct Segment {
  begin @0 :UInt32;
  end @1 :UInt32;
  role @2 :Role;
  inLoss @3 :Bool;
}

struct VersionSpan {
  begin @0 :UInt32;
  end @1 :UInt32;
  lineage @2 :UInt32;
  step @3 :UInt32;
}

struct KvSpan {
  begin @0 :UInt32;
  end @1 :UInt32;
  lineage @2 :UInt32;
  step @3 :UInt32;
  recomputed @4 :Bool;
}

struct SamplingParams {
  temperature @0 :Float32;
  topK @1 :UInt32;
  topP @2 :Float32;
  minP @3 :Float32;
  repetitionPenalty @4 :Float32;
  maxNewTokens @5 :UInt32;
  logitBiasTokens @6 :Data;  # int32
  logitBiasValues @7 :Data;  # float32
  allowedTokens @8 :Data;    # int32
}

struct PositionReward {
  position @0 :UInt32;
  name @1 :Text;
  value @2 :Float64;
}

struct Outcome {
  kind @0 :Types.OutcomeKind;
  score @1 :Float64;
  reward @2 :Float64;
  reason @3 :Text;
  subscores @4 :List(Types.Metric);
  positionRewards @5 :List(PositionReward);
  nondeterministic @6 :Bool;
}

struct Timings {
  queueMs @0 :Float32;
  prefillMs @1 :Float32;
  decodeMs @2 :Float32;
  gradeMs @3 :Float32;
}

struct Trajectory {
  id @0 :Types.TrajectoryId;
  groupSize @1 :UInt32;
  pinned @2 :Types.PolicyVersion;
  promptHash @3 :Types.Hash128;
  instanceHash @4 :Types.Hash128;
  task @5 :Text;
  tokens @6 :Data;             # int32
  segments @7 :List(Segment);
  logprobs @8 :Data;           # float32
  keptMassLogprobs @9 :Data;   # float32
  versions @10 :List(VersionSpan);
  kvHistory @11 :List(KvSpan);
  sampling @12 :SamplingParams;
  finish @13 :FinishReason;
  outcome @14 :Outcome;
  text @15 :Data;              # bytes as the model wrote them, UTF-8 or not
  hasParent @16 :Bool;
  parent @17 :Types.TrajectoryId;
  parentPosition @18 :UInt32;
  episode @19 :UInt64;
  episodeIndex @20 :UInt32;
  timings @21 :Timings;
  actor @22 :UInt32;
  incarnation @23 :UInt64;
  runIdentity @24 :Types.Hash128;
}
