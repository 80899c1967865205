#include <algorithm>
#include <array>
#include <bit>
#include <span>

#include "common/wire/records.h"
#include "common/wire/trajectory.capnp.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {
namespace {

using wire::Read;  // beside the overloads of this file
using wire::Write;

constexpr const char* kRecordName = "trajectory record";

static_assert(std::endian::native == std::endian::little,
              "arrays are encoded as they lie in memory");

template <typename T>
capnp::Data::Reader ToData(const std::vector<T>& values) {
  static_assert(sizeof(T) == 4);
  return {reinterpret_cast<const kj::byte*>(values.data()), values.size() * sizeof(T)};
}

// Where it lies; data begins at a word.
template <typename T>
std::span<const T> ReadSpan(capnp::Data::Reader data, const char* field) {
  if (data.size() % sizeof(T) != 0) {
    throw Malformed(std::string(field) + " has " + std::to_string(data.size()) +
                    " bytes; allowed: multiples of 4");
  }
  return {reinterpret_cast<const T*>(data.begin()), data.size() / sizeof(T)};
}
template <typename T>
std::vector<T> ReadArray(capnp::Data::Reader data, const char* field) {
  const std::span<const T> values = ReadSpan<T>(data, field);
  return {values.begin(), values.end()};
}

void Write(const Segment& value, schema::Segment::Builder out) {
  out.setBegin(value.begin);
  out.setEnd(value.end);
  out.setRole(ToSchema<schema::Role>(value.role));
  out.setInLoss(value.in_loss);
}
Segment Read(schema::Segment::Reader in) {
  return {in.getBegin(), in.getEnd(), ReadEnum(in.getRole(), Role::kTool, "role"), in.getInLoss()};
}

void Write(const VersionSpan& value, schema::VersionSpan::Builder out) {
  out.setBegin(value.begin);
  out.setEnd(value.end);
  out.setLineage(value.version.lineage);
  out.setStep(value.version.step);
}
VersionSpan Read(schema::VersionSpan::Reader in) {
  return {in.getBegin(), in.getEnd(), {in.getLineage(), in.getStep()}};
}

void Write(const KvSpan& value, schema::KvSpan::Builder out) {
  out.setBegin(value.begin);
  out.setEnd(value.end);
  out.setLineage(value.version.lineage);
  out.setStep(value.version.step);
  out.setRecomputed(value.recomputed);
}
KvSpan Read(schema::KvSpan::Reader in) {
  return {in.getBegin(), in.getEnd(), {in.getLineage(), in.getStep()}, in.getRecomputed()};
}

void Write(const SamplingParams& value, schema::SamplingParams::Builder out) {
  out.setTemperature(value.temperature);
  out.setTopK(value.top_k);
  out.setTopP(value.top_p);
  out.setMinP(value.min_p);
  out.setRepetitionPenalty(value.repetition_penalty);
  out.setMaxNewTokens(value.max_new_tokens);
  std::vector<std::int32_t> tokens;
  std::vector<float> values;
  for (const LogitBias& bias : value.logit_bias) {
    tokens.push_back(bias.token);
    values.push_back(bias.value);
  }
  if (!tokens.empty()) out.setLogitBiasTokens(ToData(tokens));
  if (!values.empty()) out.setLogitBiasValues(ToData(values));
  if (!value.allowed_tokens.empty()) out.setAllowedTokens(ToData(value.allowed_tokens));
}
SamplingParams Read(schema::SamplingParams::Reader in) {
  SamplingParams params{in.getTemperature(),       in.getTopK(),        in.getTopP(), in.getMinP(),
                        in.getRepetitionPenalty(), in.getMaxNewTokens()};
  const auto tokens = ReadArray<std::int32_t>(in.getLogitBiasTokens(), "logit_bias");
  const auto values = ReadArray<float>(in.getLogitBiasValues(), "logit_bias");
  Require(tokens.size() == values.size(), "logit_bias has as many tokens as values");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    params.logit_bias.push_back({tokens[i], values[i]});
  }
  params.allowed_tokens = ReadArray<std::int32_t>(in.getAllowedTokens(), "allowed_tokens");
  return params;
}

void Write(const SubScore& value, schema::Metric::Builder out) {
  out.setName(ToText(value.name));
  out.setValue(value.value);
}
void Write(const PositionReward& value, schema::PositionReward::Builder out) {
  out.setPosition(value.position);
  out.setName(ToText(value.name));
  out.setValue(value.value);
}
PositionReward Read(schema::PositionReward::Reader in) {
  return {in.getPosition(), ToString(in.getName()), in.getValue()};
}

constexpr auto kWrite = [](const auto& value, auto out) { Write(value, out); };
constexpr auto kRead = [](auto in) { return Read(in); };

void Write(const Outcome& value, schema::Outcome::Builder out) {
  out.setKind(ToSchema<schema::OutcomeKind>(value.kind));
  out.setScore(value.score);
  out.setReward(value.reward);
  out.setReason(ToText(value.reason));
  WriteList(value.subscores, out.initSubscores(value.subscores.size()), kWrite);
  WriteList(value.position_rewards, out.initPositionRewards(value.position_rewards.size()), kWrite);
  out.setNondeterministic(value.nondeterministic);
}
Outcome Read(schema::Outcome::Reader in) {
  Outcome outcome;
  outcome.kind = ReadEnum(in.getKind(), OutcomeKind::kRejected, "outcome kind");
  outcome.score = in.getScore();
  outcome.reward = in.getReward();
  outcome.reason = ToString(in.getReason());
  for (auto subscore : in.getSubscores()) {
    outcome.subscores.push_back({ToString(subscore.getName()), subscore.getValue()});
  }
  outcome.position_rewards = ReadList(in.getPositionRewards(), kRead);
  outcome.nondeterministic = in.getNondeterministic();
  return outcome;
}

void Write(const Timings& value, schema::Timings::Builder out) {
  out.setQueueMs(value.queue_ms);
  out.setPrefillMs(value.prefill_ms);
  out.setDecodeMs(value.decode_ms);
  out.setGradeMs(value.grade_ms);
}
Timings Read(schema::Timings::Reader in) {
  return {in.getQueueMs(), in.getPrefillMs(), in.getDecodeMs(), in.getGradeMs()};
}

void WriteTokens(const Trajectory& t, schema::Trajectory::Builder out) {
  out.setTokens(ToData(t.tokens));
  WriteList(t.segments, out.initSegments(t.segments.size()), kWrite);
  out.setLogprobs(ToData(t.logprobs));
  out.setKeptMassLogprobs(ToData(t.kept_mass_logprobs));
  WriteList(t.versions, out.initVersions(t.versions.size()), kWrite);
  WriteList(t.kv_history, out.initKvHistory(t.kv_history.size()), kWrite);
}
void ReadTokens(schema::Trajectory::Reader in, Trajectory& t, TrajectoryArrays& arrays) {
  arrays.tokens = ReadSpan<std::int32_t>(in.getTokens(), "tokens");
  t.segments = ReadList(in.getSegments(), kRead);
  arrays.logprobs = ReadSpan<float>(in.getLogprobs(), "logprobs");
  arrays.kept_mass_logprobs = ReadSpan<float>(in.getKeptMassLogprobs(), "kept_mass_logprobs");
  t.versions = ReadList(in.getVersions(), kRead);
  t.kv_history = ReadList(in.getKvHistory(), kRead);
}

void Write(const Trajectory& t, schema::Trajectory::Builder out) {
  Write(t.id, out.initId());
  out.setGroupSize(t.group_size);
  Write(t.pinned, out.initPinned());
  Write(t.prompt_hash, out.initPromptHash());
  Write(t.instance_hash, out.initInstanceHash());
  out.setTask(ToText(t.task));
  WriteTokens(t, out);
  Write(t.sampling, out.initSampling());
  out.setFinish(ToSchema<schema::FinishReason>(t.finish));
  Write(t.outcome, out.initOutcome());
  out.setText(capnp::Data::Reader(reinterpret_cast<const kj::byte*>(t.text.data()), t.text.size()));
  out.setHasParent(t.has_parent);
  Write(t.parent, out.initParent());
  out.setParentPosition(t.parent_position);
  out.setEpisode(t.episode);
  out.setEpisodeIndex(t.episode_index);
  Write(t.timings, out.initTimings());
  out.setActor(t.actor.value);
  out.setIncarnation(t.incarnation.value);
  Write(t.run_identity, out.initRunIdentity());
}
// All but the long arrays goes to `t`.
void Read(schema::Trajectory::Reader in, Trajectory& t, TrajectoryArrays& arrays) {
  t.id = Read(in.getId());
  t.group_size = in.getGroupSize();
  t.pinned = Read(in.getPinned());
  t.prompt_hash = Read(in.getPromptHash());
  t.instance_hash = Read(in.getInstanceHash());
  t.task = ToString(in.getTask());
  ReadTokens(in, t, arrays);
  t.sampling = Read(in.getSampling());
  t.finish = ReadEnum(in.getFinish(), FinishReason::kError, "finish");
  t.outcome = Read(in.getOutcome());
  capnp::Data::Reader text = in.getText();
  arrays.text = {reinterpret_cast<const char*>(text.begin()), text.size()};
  t.has_parent = in.getHasParent();
  t.parent = Read(in.getParent());
  t.parent_position = in.getParentPosition();
  t.episode = in.getEpisode();
  t.episode_index = in.getEpisodeIndex();
  t.timings = Read(in.getTimings());
  t.actor = ActorId(in.getActor());
  t.incarnation = Incarnation(in.getIncarnation());
  t.run_identity = Read(in.getRunIdentity());
}

// Words that hold the message in one segment: no far pointers, no second copy while it grows.
std::size_t EstimateWords(const Trajectory& t) {
  std::size_t bytes = 4 * (t.tokens.size() + t.logprobs.size() + t.kept_mass_logprobs.size()) +
                      16 * (t.segments.size() + t.versions.size()) + 24 * t.kv_history.size() +
                      t.text.size() + t.task.size() + t.outcome.reason.size() +
                      8 * t.sampling.logit_bias.size() + 4 * t.sampling.allowed_tokens.size();
  for (const SubScore& subscore : t.outcome.subscores) bytes += 32 + subscore.name.size();
  for (const PositionReward& reward : t.outcome.position_rewards) bytes += 40 + reward.name.size();
  return 128 + bytes / sizeof(capnp::word);
}

}  // namespace

std::string EncodeTrajectory(const Trajectory& trajectory) {
  std::size_t words = EstimateWords(trajectory);
  THRESHER_CHECK(words < (std::size_t{1} << 26), "a trajectory of more than 512 MiB");
  capnp::MallocMessageBuilder message(static_cast<unsigned>(words));
  Write(trajectory, message.initRoot<schema::Trajectory>());
  std::string bytes;
  AppendCapnp(bytes, message);
  return bytes;
}

Result<Trajectory> DecodeTrajectory(std::string_view bytes) {
  Trajectory trajectory;
  THRESHER_RETURN_IF_ERROR(
      ReadCapnp<schema::Trajectory>(bytes, kRecordName, [&](schema::Trajectory::Reader root) {
        TrajectoryArrays arrays;
        Read(root, trajectory, arrays);
        trajectory.tokens.assign(arrays.tokens.begin(), arrays.tokens.end());
        trajectory.logprobs.assign(arrays.logprobs.begin(), arrays.logprobs.end());
        trajectory.kept_mass_logprobs.assign(arrays.kept_mass_logprobs.begin(),
                                             arrays.kept_mass_logprobs.end());
        trajectory.text = arrays.text;
      }));
  THRESHER_RETURN_IF_ERROR(trajectory.Validate());
  return trajectory;
}

// A hostile record may let arrays overlap: of those only one is named.
ArrayRanges TrajectoryView::Ranges() const {
  std::array<std::span<const std::byte>, kMostArrays> arrays = {
      std::as_bytes(arrays_.tokens), std::as_bytes(arrays_.logprobs),
      std::as_bytes(arrays_.kept_mass_logprobs)};
  std::ranges::sort(arrays, {}, [](const auto& array) { return array.data(); });
  ArrayRanges ranges{};
  std::size_t count = 0, end = 0;
  for (const auto& array : arrays) {
    if (array.empty()) continue;
    const auto offset =
        static_cast<std::size_t>(reinterpret_cast<const char*>(array.data()) - bytes_.data());
    if (offset < end) continue;
    ranges[count++] = {static_cast<std::uint32_t>(offset),
                       static_cast<std::uint32_t>(array.size())};
    end = offset + array.size();
  }
  return ranges;
}

Result<TrajectoryView> TrajectoryView::Open(SharedBytes bytes) {
  TrajectoryView view;
  view.bytes_ = IsAligned(bytes) ? std::move(bytes) : bytes.Copy();
  THRESHER_RETURN_IF_ERROR(ReadCapnp<schema::Trajectory>(
      view.bytes_, kRecordName,
      [&](schema::Trajectory::Reader root) { Read(root, view.fields_, view.arrays_); }));
  THRESHER_RETURN_IF_ERROR(TrajectoryRef(view).Validate());
  return view;
}

}  // namespace thresher::wire
