#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {
namespace {

using wire::Read;  // beside the overloads of this file
using wire::Write;

void Write(const Lease& value, schema::Lease::Builder out) {
  out.setFence(value.fence.value);
  out.setPurpose(ToSchema<schema::Purpose>(value.purpose));
  out.setStream(ToSchema<schema::Stream>(value.stream));
  out.setIsland(value.island);
  out.setItem(value.item);
  out.setFirstSample(value.first_sample);
  out.setSamples(value.samples);
  out.setGroupSize(value.group_size);
  out.setPinned(value.pinned);
  out.setLineage(value.version.lineage);
  out.setStep(value.version.step);
  out.setTemperature(value.temperature);
  out.setMaxNewTokens(value.max_new_tokens);
}
Lease Read(schema::Lease::Reader in) {
  Lease lease;
  lease.fence = FencingToken(in.getFence());
  lease.purpose = ReadEnum(in.getPurpose(), Purpose::kBranch, "purpose");
  lease.stream = ReadEnum(in.getStream(), Stream::kUser, "stream");
  lease.island = in.getIsland();
  lease.item = in.getItem();
  lease.first_sample = in.getFirstSample();
  lease.samples = in.getSamples();
  lease.group_size = in.getGroupSize();
  lease.pinned = in.getPinned();
  lease.version = {in.getLineage(), in.getStep()};
  lease.temperature = in.getTemperature();
  lease.max_new_tokens = in.getMaxNewTokens();
  Require(lease.island <= TrajectoryId::kMaxIsland, "lease: island is out of range");
  Require(lease.item <= TrajectoryId::kMaxItem, "lease: item is out of range");
  Require(std::uint64_t{lease.first_sample} + lease.samples <= TrajectoryId::kMaxSample + 1,
          "lease: samples are out of range");
  return lease;
}

}  // namespace

void Write(const LeaseRequest& value, schema::LeaseRequest::Builder out) {
  out.setRequest(value.request);
  out.setMaxSamples(value.max_samples);
  out.setHasWeights(value.has_weights);
  Write(value.weights, out.initWeights());
}
LeaseRequest Read(schema::LeaseRequest::Reader in) {
  return {in.getRequest(), in.getMaxSamples(), in.getHasWeights(), Read(in.getWeights())};
}

void Write(const LeaseRelease& value, schema::LeaseRelease::Builder out) {
  out.setFence(value.fence.value);
  WriteList(value.unfinished, out.initUnfinished(value.unfinished.size()), kWriteShared);
  out.setReason(ToText(value.reason));
}
LeaseRelease Read(schema::LeaseRelease::Reader in) {
  return {FencingToken(in.getFence()), ReadList(in.getUnfinished(), kReadShared),
          ToString(in.getReason())};
}

void Write(const LeaseGrant& value, schema::LeaseGrant::Builder out) {
  out.setRequest(value.request);
  WriteList(value.leases, out.initLeases(value.leases.size()),
            [](const Lease& lease, auto builder) { Write(lease, builder); });
  out.setFinished(value.finished);
}
LeaseGrant Read(schema::LeaseGrant::Reader in) {
  return {in.getRequest(), ReadList(in.getLeases(), [](auto lease) { return Read(lease); }),
          in.getFinished()};
}

void Write(const Upload& value, schema::Upload::Builder out) {
  THRESHER_CHECK(value.fences.size() == value.records.size(), "an upload has a fence per record");
  out.setUpload(value.upload);
  auto fences = out.initFences(value.fences.size());
  for (std::size_t i = 0; i < value.fences.size(); ++i) fences.set(i, value.fences[i].value);
}
Upload Read(schema::Upload::Reader in) {
  Upload upload;
  upload.upload = in.getUpload();
  for (std::uint64_t fence : in.getFences()) upload.fences.emplace_back(fence);
  return upload;
}

void Write(const UploadAck& value, schema::UploadAck::Builder out) {
  THRESHER_CHECK(value.verdicts.size() == value.reasons.size(), "a verdict has a reason, or ''");
  out.setUpload(value.upload);
  auto verdicts = out.initVerdicts(value.verdicts.size());
  auto reasons = out.initReasons(value.reasons.size());
  for (std::size_t i = 0; i < value.verdicts.size(); ++i) {
    verdicts.set(i, ToSchema<schema::UploadVerdict>(value.verdicts[i]));
    reasons.set(i, ToText(value.reasons[i]));
  }
  Write(value.credit, out.initCredit());
}
UploadAck Read(schema::UploadAck::Reader in) {
  UploadAck ack;
  ack.upload = in.getUpload();
  for (auto verdict : in.getVerdicts()) {
    ack.verdicts.push_back(ReadEnum(verdict, UploadVerdict::kRefused, "verdict"));
  }
  for (auto reason : in.getReasons()) ack.reasons.push_back(ToString(reason));
  Require(ack.verdicts.size() == ack.reasons.size(), "upload ack: verdicts and reasons differ");
  ack.credit = Read(in.getCredit());
  return ack;
}

void Write(const SampleFailed& value, schema::SampleFailed::Builder out) {
  out.setFence(value.fence.value);
  Write(value.id, out.initId());
  out.setReason(ToText(value.reason));
  out.setDetail(ToText(value.detail));
}
SampleFailed Read(schema::SampleFailed::Reader in) {
  return {FencingToken(in.getFence()), Read(in.getId()), ToString(in.getReason()),
          ToString(in.getDetail())};
}

void Write(const Consumed& value, schema::Consumed::Builder out) {
  auto uploads = out.initUploads(value.uploads.size());
  for (std::size_t i = 0; i < value.uploads.size(); ++i) uploads.set(i, value.uploads[i]);
}
Consumed Read(schema::Consumed::Reader in) {
  Consumed consumed;
  for (std::uint64_t upload : in.getUploads()) consumed.uploads.push_back(upload);
  return consumed;
}

}  // namespace thresher::wire
