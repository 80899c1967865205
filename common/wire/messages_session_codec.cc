#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {

void Write(const Hello& value, schema::Hello::Builder out) {
  out.setRole(ToSchema<schema::PeerRole>(value.role));
  out.setIndex(value.index);
  out.setWorld(value.world);
  out.setName(ToText(value.name));
  out.setPid(value.pid);
  Write(value.identity, out.initIdentity());
  out.setHasWeights(value.has_weights);
  Write(value.weights, out.initWeights());
  Write(value.weights_hash, out.initWeightsHash());
}
Hello Read(schema::Hello::Reader in) {
  Hello hello;
  hello.role = ReadEnum(in.getRole(), PeerRole::kTool, "role");
  hello.index = in.getIndex();
  hello.world = in.getWorld();
  hello.name = ToString(in.getName());
  hello.pid = in.getPid();
  hello.identity = Read(in.getIdentity());
  hello.has_weights = in.getHasWeights();
  hello.weights = Read(in.getWeights());
  hello.weights_hash = Read(in.getWeightsHash());
  return hello;
}

void Write(const Credit& value, schema::Credit::Builder out) {
  out.setNumber(value.number);
  out.setBytes(value.bytes);
}
Credit Read(schema::Credit::Reader in) { return {in.getNumber(), in.getBytes()}; }

void Write(const Heartbeat& value, schema::Heartbeat::Builder out) {
  out.setProgress(value.progress);
  out.setLongestStepMs(value.longest_step_ms);
  out.setHasWeights(value.has_weights);
  Write(value.weights, out.initWeights());
  Write(value.weights_hash, out.initWeightsHash());
  auto held = out.initHeld(value.held.size());
  for (std::size_t i = 0; i < value.held.size(); ++i) held.set(i, value.held[i].value);
  WriteList(value.counters, out.initCounters(value.counters.size()), kWriteShared);
  Write(value.credit, out.initCredit());
  auto kept = out.initKept(value.kept.size());
  for (std::size_t i = 0; i < value.kept.size(); ++i) kept.set(i, value.kept[i]);
  out.setWaiting(ToText(value.waiting));
}
Heartbeat Read(schema::Heartbeat::Reader in) {
  Heartbeat heartbeat;
  heartbeat.progress = in.getProgress();
  heartbeat.longest_step_ms = in.getLongestStepMs();
  heartbeat.has_weights = in.getHasWeights();
  heartbeat.weights = Read(in.getWeights());
  heartbeat.weights_hash = Read(in.getWeightsHash());
  for (std::uint64_t fence : in.getHeld()) heartbeat.held.emplace_back(fence);
  heartbeat.counters = ReadList(in.getCounters(), kReadShared);
  heartbeat.credit = Read(in.getCredit());
  for (std::uint64_t upload : in.getKept()) heartbeat.kept.push_back(upload);
  heartbeat.waiting = ToString(in.getWaiting());
  return heartbeat;
}

void Write(const Goodbye& value, schema::Goodbye::Builder out) {
  out.setReason(ToText(value.reason));
  out.setLostTokens(value.lost_tokens);
  out.setContinuedTokens(value.continued_tokens);
}
Goodbye Read(schema::Goodbye::Reader in) {
  return {ToString(in.getReason()), in.getLostTokens(), in.getContinuedTokens()};
}

void Write(const Welcome& value, schema::Welcome::Builder out) {
  out.setEpoch(value.epoch.value);
  out.setRunSeed(value.run_seed);
  out.setHeartbeatMs(value.heartbeat_ms);
  out.setHasWeights(value.has_weights);
  Write(value.weights, out.initWeights());
  out.setCommittedSteps(value.committed_steps);
  out.setDurableSteps(value.durable_steps);
  Write(value.credit, out.initCredit());
  out.setKeepUntilConsumed(value.keep_until_consumed);
}
Welcome Read(schema::Welcome::Reader in) {
  Welcome welcome;
  welcome.epoch = BrokerEpoch(in.getEpoch());
  welcome.run_seed = in.getRunSeed();
  welcome.heartbeat_ms = in.getHeartbeatMs();
  welcome.has_weights = in.getHasWeights();
  welcome.weights = Read(in.getWeights());
  welcome.committed_steps = in.getCommittedSteps();
  welcome.durable_steps = in.getDurableSteps();
  welcome.credit = Read(in.getCredit());
  welcome.keep_until_consumed = in.getKeepUntilConsumed();
  return welcome;
}

void Write(const Refused& value, schema::Refused::Builder out) {
  out.setReason(ToText(value.reason));
}
Refused Read(schema::Refused::Reader in) { return {ToString(in.getReason())}; }

void Write(const Rejoin&, schema::Rejoin::Builder) {}
Rejoin Read(schema::Rejoin::Reader) { return {}; }

void Write(const HeartbeatAck& value, schema::HeartbeatAck::Builder out) {
  out.setHasWeights(value.has_weights);
  Write(value.newest, out.initNewest());
  Write(value.credit, out.initCredit());
}
HeartbeatAck Read(schema::HeartbeatAck::Reader in) {
  return {in.getHasWeights(), Read(in.getNewest()), Read(in.getCredit())};
}

void Write(const Shutdown& value, schema::Shutdown::Builder out) {
  out.setReason(ToText(value.reason));
  out.setCheckpointFirst(value.checkpoint_first);
  auto keep = out.initKeep(value.keep.size());
  for (std::size_t i = 0; i < value.keep.size(); ++i) keep.set(i, value.keep[i]);
}
Shutdown Read(schema::Shutdown::Reader in) {
  Shutdown stop{ToString(in.getReason()), in.getCheckpointFirst(), {}};
  for (std::uint32_t step : in.getKeep()) stop.keep.push_back(step);
  return stop;
}

namespace {

capnp::Data::Reader ToData(const std::string& bytes) {
  return {reinterpret_cast<const capnp::byte*>(bytes.data()), bytes.size()};
}
std::string ToBytes(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

}  // namespace

void Write(const RanksMeet& value, schema::RanksMeet::Builder out) {
  out.setJob(ToText(value.job));
  out.setWorld(value.world);
  out.setHello(ToData(value.hello));
}
RanksMeet Read(schema::RanksMeet::Reader in) {
  return {ToString(in.getJob()), in.getWorld(), ToBytes(in.getHello())};
}

void Write(const RanksMet& value, schema::RanksMet::Builder out) {
  out.setJob(ToText(value.job));
  auto hellos = out.initHellos(static_cast<unsigned>(value.hellos.size()));
  for (unsigned i = 0; i < value.hellos.size(); ++i) hellos.set(i, ToData(value.hellos[i]));
}
RanksMet Read(schema::RanksMet::Reader in) {
  return {ToString(in.getJob()), ReadList(in.getHellos(), ToBytes)};
}

}  // namespace thresher::wire
