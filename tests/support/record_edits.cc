#include "tests/support/record_edits.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace thresher::testing {
namespace {

using Field = std::pair<std::string, std::function<void()>>;
using Fields = std::vector<Field>;

Field Number(const std::string& name, auto& value) {
  return {name, [&value] { value += 1; }};
}
Field Bits(const std::string& name, Hash128& hash) {
  return {name, [&hash] { hash.low ^= 1; }};
}
Field Flag(const std::string& name, bool& flag) {
  return {name, [&flag] { flag = !flag; }};
}

Fields FieldsIn(wire::EpochStarted& r) {
  return {Number("epoch", r.epoch.value), Bits("run_id", r.run_id)};
}
Fields FieldsIn(wire::ItemsIssued& r) {
  return {Number("first_item", r.first_item),
          Number("items", r.items),
          Number("samples", r.samples),
          Number("step", r.step),
          Number("island", r.island),
          Number("version", r.version.step),
          Number("round", r.round)};
}
Fields FieldsIn(wire::SampleAccepted& r) {
  auto outcome = [&r] {
    r.outcome = r.outcome == OutcomeKind::kScored ? OutcomeKind::kUnparsable : OutcomeKind::kScored;
  };
  return {Number("id", r.id.sample),
          Bits("content_hash", r.content_hash),
          Number("actor", r.actor),
          Number("incarnation", r.incarnation.value),
          Number("oldest_version", r.oldest_version.step),
          Number("reward", r.reward),
          Number("loss_tokens", r.loss_tokens),
          Bits("instance_hash", r.instance_hash),
          {"outcome", outcome},
          Flag("nondeterministic", r.nondeterministic),
          Flag("truncated", r.truncated)};
}
Fields FieldsIn(wire::SampleDropped& r) {
  auto reason = [&r] { r.reason = wire::DropReason::kDeadline; };
  return {Number("id", r.id.item), Number("step", r.step), {"reason", reason}};
}
Fields FieldsIn(wire::BatchComposed& r) {
  Fields fields = {Number("lineage", r.lineage), Number("step", r.step), Bits("digest", r.digest),
                   Number("loss_tokens", r.loss_tokens)};
  if (r.ids.size() > 1) {
    fields.push_back({"order", [&r] { std::swap(r.ids.front(), r.ids.back()); }});
    fields.push_back({"ids", [&r] { r.ids.pop_back(); }});
  }
  return fields;
}
Fields FieldsIn(wire::StepCommitted& r) {
  return {Number("lineage", r.lineage),
          Number("step", r.step),
          Bits("batch_digest", r.batch_digest),
          Bits("chain", r.chain),
          Bits("state_hash", r.state_hash),
          Number("trained_tokens", r.trained_tokens),
          Number("audited_tokens", r.audited_tokens),
          Number("mismatched_tokens", r.mismatched_tokens),
          Flag("retrained", r.retrained)};
}
Fields FieldsIn(wire::VersionPublished& r) {
  return {Number("version", r.version.step), Bits("hash", r.hash), Number("bytes", r.bytes)};
}
Fields FieldsIn(wire::StepsDurable& r) {
  return {Number("lineage", r.lineage),
          Number("step", r.step),
          Bits("chain", r.chain),
          Bits("manifest_hash", r.manifest_hash),
          {"folder", [&r] { r.folder += "0"; }}};
}
Fields FieldsIn(wire::RoundEvaluated& r) {
  return {Number("round", r.round), Number("version", r.version.step), Bits("digest", r.digest),
          Number("items", r.items), Number("samples", r.samples)};
}
Fields FieldsIn(wire::RunFinished& r) {
  return {Number("steps", r.steps), Bits("final_weights", r.final_weights)};
}

Fields FieldsOfRecord(wire::JournalRecord& record) {
  return std::visit([](auto& r) { return FieldsIn(r); }, record);
}

struct Subject {
  static std::string Step(std::uint32_t step) { return "step " + std::to_string(step); }
  std::string operator()(const wire::EpochStarted&) const { return "broker"; }
  std::string operator()(const wire::ItemsIssued& r) const {
    return r.stream == Stream::kEval ? "round " + std::to_string(r.round) : Step(r.step);
  }
  std::string operator()(const wire::SampleAccepted& r) const { return r.id.ToString(); }
  std::string operator()(const wire::SampleDropped& r) const { return r.id.ToString(); }
  std::string operator()(const wire::BatchComposed& r) const { return Step(r.step); }
  std::string operator()(const wire::StepCommitted& r) const { return Step(r.step); }
  std::string operator()(const wire::VersionPublished& r) const { return r.version.ToString(); }
  std::string operator()(const wire::StepsDurable& r) const { return r.folder; }
  std::string operator()(const wire::RoundEvaluated& r) const {
    return "round " + std::to_string(r.round);
  }
  std::string operator()(const wire::RunFinished&) const { return "finished"; }
};

bool Apply(const Fields& fields, const std::string& name) {
  auto found = std::find_if(fields.begin(), fields.end(),
                            [&](const Field& field) { return field.first == name; });
  if (found == fields.end()) return false;
  found->second();
  return true;
}

}  // namespace

std::string SubjectOf(const wire::JournalRecord& record) { return std::visit(Subject{}, record); }

std::vector<std::string> FieldsOf(const wire::JournalRecord& record) {
  wire::JournalRecord copy = record;
  std::vector<std::string> names;
  for (const Field& field : FieldsOfRecord(copy)) names.push_back(field.first);
  return names;
}

bool AlterField(wire::JournalRecord& record, const std::string& field) {
  return Apply(FieldsOfRecord(record), field);
}

void Wipe(Trajectory& trajectory) {
  std::fill(trajectory.tokens.begin(), trajectory.tokens.end(), 0);
  std::fill(trajectory.logprobs.begin(), trajectory.logprobs.end(), 0.0f);
  trajectory.text.clear();
}

bool AlterField(Trajectory& trajectory, const std::string& field, std::size_t index) {
  const std::size_t policy = trajectory.PolicyTokenCount();
  Fields fields = {Number("reward", trajectory.outcome.reward),
                   Number("actor", trajectory.actor.value),
                   Bits("run_identity", trajectory.run_identity),
                   {"text", [&] { trajectory.text += "x"; }}};
  if (index < policy) {
    std::size_t position = trajectory.tokens.size() - policy + index;
    fields.push_back({"token", [&trajectory, position] { trajectory.tokens[position] ^= 1; }});
  }
  if (index < trajectory.logprobs.size()) {
    fields.push_back({"logprob", [&trajectory, index] {
                        float& value = trajectory.logprobs[index];
                        value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1u);
                      }});
  }
  return Apply(fields, field);
}

}  // namespace thresher::testing
