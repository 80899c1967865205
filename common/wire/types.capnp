@0x8312fa4746163225;
# Structures that trajectories, messages and journal records share.
# Evolution: fields and union members are only ever added at the end; a number is never reused.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("thresher::wire::schema");

struct Hash128 {
  high @0 :UInt64;
  low @1 :UInt64;
}

struct PolicyVersion {
  lineage @0 :UInt32;
  step @1 :UInt32;
}

enum Stream {
  train @0;
  supervised @1;
  eval @2;
  branch @3;
  user @4;
}

struct TrajectoryId {
  stream @0 :Stream;
  island @1 :UInt16;
  sample @2 :UInt32;
  item @3 :UInt64;
}

enum OutcomeKind {
  scored @0;
  unparsable @1;
  timedOut @2;
  crashed @3;
  rejected @4;
}

struct RunIdentity {
  backend @0 :Text;
  architecture @1 :Text;
  kernelSet @2 :Text;
  weightType @3 :Text;
  computeType @4 :Text;
  kvType @5 :Text;
  gemmCut @6 :UInt32;
  attentionSplit @7 :UInt32;
  gradLeaves @8 :UInt32;
  build @9 :Text;
  modelShape @10 :Hash128;
  tokenizer @11 :Hash128;
  task @12 :Hash128;
  resultKeys @13 :Hash128;
  runSeed @14 :UInt64;
}

struct Metric {
  name @0 :Text;
  value @1 :Float64;
}
