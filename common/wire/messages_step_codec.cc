#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {

void Write(const FetchLeaf& value, schema::FetchLeaf::Builder out) {
  out.setRequest(value.request);
  out.setLineage(value.lineage);
  out.setStep(value.step);
  out.setLeaf(value.leaf);
  out.setPart(value.part);
}
FetchLeaf Read(schema::FetchLeaf::Reader in) {
  return {in.getRequest(), in.getLineage(), in.getStep(), in.getLeaf(), in.getPart()};
}

void Write(const LeafPart& value, schema::LeafPart::Builder out) {
  out.setRequest(value.request);
  out.setLineage(value.lineage);
  out.setStep(value.step);
  out.setLeaf(value.leaf);
  out.setPart(value.part);
  out.setParts(value.parts);
  Write(value.batch_digest, out.initBatchDigest());
  out.setBatchTrajectories(value.batch_trajectories);
  out.setBatchLossTokens(value.batch_loss_tokens);
}
LeafPart Read(schema::LeafPart::Reader in) {
  LeafPart part;
  part.request = in.getRequest();
  part.lineage = in.getLineage();
  part.step = in.getStep();
  part.leaf = in.getLeaf();
  part.part = in.getPart();
  part.parts = in.getParts();
  part.batch_digest = Read(in.getBatchDigest());
  part.batch_trajectories = in.getBatchTrajectories();
  part.batch_loss_tokens = in.getBatchLossTokens();
  return part;
}

void Write(const NotReady& value, schema::NotReady::Builder out) { out.setRequest(value.request); }
NotReady Read(schema::NotReady::Reader in) { return {in.getRequest()}; }

void Write(const StepDone& value, schema::StepDone::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
  Write(value.batch_digest, out.initBatchDigest());
  Write(value.chain, out.initChain());
  Write(value.state_hash, out.initStateHash());
  out.setTrainedTokens(value.trained_tokens);
  out.setAuditedTokens(value.audited_tokens);
  out.setMismatchedTokens(value.mismatched_tokens);
  WriteList(value.metrics, out.initMetrics(value.metrics.size()), kWriteShared);
  WriteList(value.mismatches_by_actor, out.initMismatchesByActor(value.mismatches_by_actor.size()),
            [](const auto& mismatch, schema::ActorMismatch::Builder builder) {
              builder.setActor(mismatch.first);
              builder.setTokens(mismatch.second);
            });
}
StepDone Read(schema::StepDone::Reader in) {
  StepDone done;
  done.lineage = in.getLineage();
  done.step = in.getStep();
  done.batch_digest = Read(in.getBatchDigest());
  done.chain = Read(in.getChain());
  done.state_hash = Read(in.getStateHash());
  done.trained_tokens = in.getTrainedTokens();
  done.audited_tokens = in.getAuditedTokens();
  done.mismatched_tokens = in.getMismatchedTokens();
  done.metrics = ReadList(in.getMetrics(), kReadShared);
  done.mismatches_by_actor =
      ReadList(in.getMismatchesByActor(), [](schema::ActorMismatch::Reader mismatch) {
        return std::pair{mismatch.getActor(), mismatch.getTokens()};
      });
  return done;
}

void Write(const StepAck& value, schema::StepAck::Builder out) { out.setStep(value.step); }
StepAck Read(schema::StepAck::Reader in) { return {in.getStep()}; }

void Write(const CheckpointDone& value, schema::CheckpointDone::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
  out.setFolder(ToText(value.folder));
  Write(value.manifest_hash, out.initManifestHash());
  Write(value.chain, out.initChain());
}
CheckpointDone Read(schema::CheckpointDone::Reader in) {
  return {in.getLineage(), in.getStep(), ToString(in.getFolder()), Read(in.getManifestHash()),
          Read(in.getChain())};
}

void Write(const CheckpointAck& value, schema::CheckpointAck::Builder out) {
  out.setStep(value.step);
  auto keep = out.initKeep(value.keep.size());
  for (std::size_t i = 0; i < value.keep.size(); ++i) keep.set(i, value.keep[i]);
}
CheckpointAck Read(schema::CheckpointAck::Reader in) {
  CheckpointAck ack{in.getStep(), {}};
  for (std::uint32_t step : in.getKeep()) ack.keep.push_back(step);
  return ack;
}

}  // namespace thresher::wire
