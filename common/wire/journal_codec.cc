#include "common/wire/journal_codec.h"

#include "common/wire/types_codec.h"

namespace thresher::wire {

void Write(const EpochStarted& value, schema::EpochStarted::Builder out) {
  out.setEpoch(value.epoch.value);
  out.setIncarnation(value.incarnation.value);
  Write(value.run_id, out.initRunId());
  Write(value.run_identity, out.initRunIdentity());
}
EpochStarted Read(schema::EpochStarted::Reader in) {
  return {BrokerEpoch(in.getEpoch()), Incarnation(in.getIncarnation()), Read(in.getRunId()),
          Read(in.getRunIdentity())};
}

void Write(const ItemsIssued& value, schema::ItemsIssued::Builder out) {
  out.setStream(ToSchema<schema::Stream>(value.stream));
  out.setIsland(value.island);
  out.setFirstItem(value.first_item);
  out.setItems(value.items);
  out.setSamples(value.samples);
  out.setStep(value.step);
  out.setRound(value.round);
  Write(value.version, out.initVersion());
}
ItemsIssued Read(schema::ItemsIssued::Reader in) {
  ItemsIssued issued;
  issued.stream = ReadEnum(in.getStream(), Stream::kUser, "stream");
  issued.island = in.getIsland();
  issued.first_item = in.getFirstItem();
  issued.items = in.getItems();
  issued.samples = in.getSamples();
  issued.step = in.getStep();
  issued.round = in.getRound();
  issued.version = Read(in.getVersion());
  Require(issued.island <= TrajectoryId::kMaxIsland, "island is out of range");
  Require(issued.first_item <= TrajectoryId::kMaxItem &&
              issued.items <= TrajectoryId::kMaxItem + 1 - issued.first_item,
          "items are out of range");
  Require(issued.samples <= TrajectoryId::kMaxSample + 1, "samples are out of range");
  return issued;
}

void Write(const SampleAccepted& value, schema::SampleAccepted::Builder out) {
  Write(value.id, out.initId());
  Write(value.content_hash, out.initContentHash());
  out.setActor(value.actor);
  out.setIncarnation(value.incarnation.value);
  Write(value.oldest_version, out.initOldestVersion());
  out.setReward(value.reward);
  out.setLossTokens(value.loss_tokens);
  Write(value.instance_hash, out.initInstanceHash());
  out.setOutcome(ToSchema<schema::OutcomeKind>(value.outcome));
  out.setNondeterministic(value.nondeterministic);
  out.setTruncated(value.truncated);
}
SampleAccepted Read(schema::SampleAccepted::Reader in) {
  SampleAccepted accepted;
  accepted.id = Read(in.getId());
  accepted.content_hash = Read(in.getContentHash());
  accepted.actor = in.getActor();
  accepted.incarnation = Incarnation(in.getIncarnation());
  accepted.oldest_version = Read(in.getOldestVersion());
  accepted.reward = in.getReward();
  accepted.loss_tokens = in.getLossTokens();
  accepted.instance_hash = Read(in.getInstanceHash());
  accepted.outcome = ReadEnum(in.getOutcome(), OutcomeKind::kRejected, "outcome kind");
  accepted.nondeterministic = in.getNondeterministic();
  accepted.truncated = in.getTruncated();
  return accepted;
}

void Write(const SampleDropped& value, schema::SampleDropped::Builder out) {
  Write(value.id, out.initId());
  out.setReason(ToSchema<schema::DropReason>(value.reason));
  out.setStep(value.step);
}
SampleDropped Read(schema::SampleDropped::Reader in) {
  return {Read(in.getId()), ReadEnum(in.getReason(), DropReason::kDeadline, "drop reason"),
          in.getStep()};
}

void Write(const BatchComposed& value, schema::BatchComposed::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
  Write(value.digest, out.initDigest());
  WriteList(value.ids, out.initIds(value.ids.size()), kWriteShared);
  out.setLossTokens(value.loss_tokens);
}
BatchComposed Read(schema::BatchComposed::Reader in) {
  return {in.getLineage(), in.getStep(), Read(in.getDigest()), ReadList(in.getIds(), kReadShared),
          in.getLossTokens()};
}

void Write(const StepCommitted& value, schema::StepCommitted::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
  Write(value.batch_digest, out.initBatchDigest());
  Write(value.chain, out.initChain());
  Write(value.state_hash, out.initStateHash());
  out.setTrainedTokens(value.trained_tokens);
  out.setAuditedTokens(value.audited_tokens);
  out.setMismatchedTokens(value.mismatched_tokens);
  out.setRetrained(value.retrained);
}
StepCommitted Read(schema::StepCommitted::Reader in) {
  StepCommitted committed;
  committed.lineage = in.getLineage();
  committed.step = in.getStep();
  committed.batch_digest = Read(in.getBatchDigest());
  committed.chain = Read(in.getChain());
  committed.state_hash = Read(in.getStateHash());
  committed.trained_tokens = in.getTrainedTokens();
  committed.audited_tokens = in.getAuditedTokens();
  committed.mismatched_tokens = in.getMismatchedTokens();
  committed.retrained = in.getRetrained();
  return committed;
}

void Write(const VersionPublished& value, schema::VersionPublished::Builder out) {
  Write(value.version, out.initVersion());
  Write(value.hash, out.initHash());
  out.setBytes(value.bytes);
}
VersionPublished Read(schema::VersionPublished::Reader in) {
  return {Read(in.getVersion()), Read(in.getHash()), in.getBytes()};
}

void Write(const StepsDurable& value, schema::StepsDurable::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
  out.setFolder(ToText(value.folder));
  Write(value.manifest_hash, out.initManifestHash());
  Write(value.chain, out.initChain());
}
StepsDurable Read(schema::StepsDurable::Reader in) {
  return {in.getLineage(), in.getStep(), ToString(in.getFolder()), Read(in.getManifestHash()),
          Read(in.getChain())};
}

void Write(const RoundEvaluated& value, schema::RoundEvaluated::Builder out) {
  out.setRound(value.round);
  Write(value.version, out.initVersion());
  Write(value.digest, out.initDigest());
  out.setItems(value.items);
  out.setSamples(value.samples);
}
RoundEvaluated Read(schema::RoundEvaluated::Reader in) {
  return {in.getRound(), Read(in.getVersion()), Read(in.getDigest()), in.getItems(),
          in.getSamples()};
}

void Write(const RunFinished& value, schema::RunFinished::Builder out) {
  out.setSteps(value.steps);
  Write(value.final_weights, out.initFinalWeights());
}
RunFinished Read(schema::RunFinished::Reader in) {
  return {in.getSteps(), Read(in.getFinalWeights())};
}

}  // namespace thresher::wire
