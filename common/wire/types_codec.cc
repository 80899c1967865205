#include "common/wire/types_codec.h"

namespace thresher::wire {

void Write(const Hash128& value, schema::Hash128::Builder out) {
  out.setHigh(value.high);
  out.setLow(value.low);
}
Hash128 Read(schema::Hash128::Reader in) { return {in.getHigh(), in.getLow()}; }

void Write(const PolicyVersion& value, schema::PolicyVersion::Builder out) {
  out.setLineage(value.lineage);
  out.setStep(value.step);
}
PolicyVersion Read(schema::PolicyVersion::Reader in) { return {in.getLineage(), in.getStep()}; }

void Write(const TrajectoryId& value, schema::TrajectoryId::Builder out) {
  out.setStream(ToSchema<schema::Stream>(value.stream));
  out.setIsland(value.island);
  out.setItem(value.item);
  out.setSample(value.sample);
}
TrajectoryId Read(schema::TrajectoryId::Reader in) {
  TrajectoryId id;
  id.stream = ReadEnum(in.getStream(), Stream::kUser, "stream");
  id.island = in.getIsland();
  id.item = in.getItem();
  id.sample = in.getSample();
  Require(id.InRange(), [&] { return "trajectory id " + id.ToString() + " is out of range"; });
  return id;
}

void Write(const RunIdentity& value, schema::RunIdentity::Builder out) {
  out.setBackend(ToText(value.backend));
  out.setArchitecture(ToText(value.architecture));
  out.setKernelSet(ToText(value.kernel_set));
  out.setWeightType(ToText(value.weight_type));
  out.setComputeType(ToText(value.compute_type));
  out.setKvType(ToText(value.kv_type));
  out.setGemmCut(value.gemm_cut);
  out.setAttentionSplit(value.attention_split);
  out.setGradLeaves(value.grad_leaves);
  out.setBuild(ToText(value.build));
  Write(value.model_shape, out.initModelShape());
  Write(value.tokenizer, out.initTokenizer());
  Write(value.task, out.initTask());
  Write(value.result_keys, out.initResultKeys());
  out.setRunSeed(value.run_seed);
}
RunIdentity Read(schema::RunIdentity::Reader in) {
  RunIdentity identity;
  identity.backend = ToString(in.getBackend());
  identity.architecture = ToString(in.getArchitecture());
  identity.kernel_set = ToString(in.getKernelSet());
  identity.weight_type = ToString(in.getWeightType());
  identity.compute_type = ToString(in.getComputeType());
  identity.kv_type = ToString(in.getKvType());
  identity.gemm_cut = in.getGemmCut();
  identity.attention_split = in.getAttentionSplit();
  identity.grad_leaves = in.getGradLeaves();
  identity.build = ToString(in.getBuild());
  identity.model_shape = Read(in.getModelShape());
  identity.tokenizer = Read(in.getTokenizer());
  identity.task = Read(in.getTask());
  identity.result_keys = Read(in.getResultKeys());
  identity.run_seed = in.getRunSeed();
  return identity;
}

void Write(const std::pair<std::string, double>& value, schema::Metric::Builder out) {
  out.setName(ToText(value.first));
  out.setValue(value.second);
}
std::pair<std::string, double> Read(schema::Metric::Reader in) {
  return {ToString(in.getName()), in.getValue()};
}

}  // namespace thresher::wire
