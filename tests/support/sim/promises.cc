#include "tests/support/sim/promises.h"

#include <algorithm>

#include "broker/partial_log.h"
#include "broker/recovery.h"
#include "common/wire/records.h"
#include "tests/support/sim/frames.h"

namespace thresher::sim {

void Promises::OnSent(const Process& sender, const std::string& bytes) {
  auto upload = Read<wire::Upload>(bytes);
  if (!upload) return;
  auto [entry, added] = uploads_.try_emplace({sender.pid(), upload->upload});
  if (!added) return;
  for (const SharedBytes& record : upload->records) {
    const Trajectory t = wire::DecodeTrajectory(record).value();
    const bool prefix = t.finish == FinishReason::kCancelled;
    entry->second.push_back({t.id, prefix ? t.PolicyTokenCount() : 0});
  }
}

bool Promises::OnPromised(std::uint32_t pid, const std::string& bytes) {
  if (auto ack = Read<wire::UploadAck>(bytes)) {
    auto upload = uploads_.find({pid, ack->upload});
    if (upload == uploads_.end()) return false;
    for (std::size_t i = 0; i < std::min(ack->verdicts.size(), upload->second.size()); ++i) {
      if (ack->verdicts[i] > wire::UploadVerdict::kDuplicate) continue;
      const auto& [id, prefix] = upload->second[i];
      if (prefix > 0) {
        if (!off_) Prefix(id, prefix);  // a duplicate: there is one that is not shorter
      } else if (off_) {
        kept_[upload->first].push_back(id);
      } else {
        accepted_.insert(id);
      }
    }
  } else if (auto grant = Read<wire::LeaseGrant>(bytes)) {
    for (const SharedBytes& bytes_of : grant->prefixes) {
      const Trajectory t = wire::DecodeTrajectory(bytes_of).value();
      Prefix(t.id, t.PolicyTokenCount());
    }
    return !grant->prefixes.empty();
  } else if (auto consumed = Read<wire::Consumed>(bytes)) {
    for (std::uint64_t number : consumed->uploads) {
      const auto& ids = kept_[{pid, number}];
      accepted_.insert(ids.begin(), ids.end());
    }
  } else if (auto step = Read<wire::StepAck>(bytes)) {
    committed_.insert(step->step);
  } else if (auto checkpoint = Read<wire::CheckpointAck>(bytes)) {
    durable_.insert(checkpoint->step);
  } else if (auto publish = Read<wire::PublishAck>(bytes)) {
    if (publish->ok) published_.insert(publish->version);
  } else {
    return false;
  }
  return true;
}

std::string Promises::Missing(const std::filesystem::path& run, const Config& config) const {
  if (accepted_.empty() && committed_.empty() && durable_.empty() && published_.empty() &&
      prefixes_.empty())
    return "";
  auto recovered = broker::Recover(run, Plan(config), {.bytes_may_be_lost = off_});
  if (!recovered.ok())
    return "the run cannot be recovered: " + recovered.status().ToString() + "\n";
  const broker::RunState& state = recovered->state;
  std::string text;
  auto expect = [&](bool there, const std::string& what) {
    if (!there) text += what + " was acknowledged and is not in the journal\n";
  };
  for (const TrajectoryId& id : accepted_) {
    const bool known = state.dedup().Find(id).has_value() || state.dedup().Forgotten(id);
    expect(known, "sample " + id.ToString());
    if (!off_) continue;
    const broker::Slot* slot = state.groups().FindSlot(id);
    const bool open = slot != nullptr && slot->state != broker::Slot::State::kDropped;
    const auto step = state.plan().StepOfItem(id.stream, id.item);
    const wire::BatchComposed* batch = step ? state.Batch(*step) : nullptr;
    const bool undone = batch != nullptr && *step >= state.durable_steps() &&
                        std::ranges::find(batch->ids, id) != batch->ids.end();
    expect(!open && !undone, "the consumption of sample " + id.ToString());
  }
  const auto partials = broker::ReadPartials(run, state);
  if (!partials.ok()) text += "prefixes: " + partials.status().ToString() + "\n";
  for (const auto& [id, tokens] : prefixes_) {
    const broker::Slot* slot = state.groups().FindSlot(id);
    const bool open = slot != nullptr && slot->state == broker::Slot::State::kIssued;
    const auto* kept = partials.ok() ? partials->partials.Find(id) : nullptr;
    expect(!open || (kept != nullptr && kept->tokens >= tokens),
           "a prefix of " + std::to_string(tokens) + " tokens of " + id.ToString());
  }
  for (std::uint32_t step : committed_) {
    expect(step < state.committed_steps(), "step " + std::to_string(step));
  }
  for (std::uint32_t step : durable_) {
    expect(step <= state.durable_steps(), "checkpoint " + std::to_string(step));
  }
  for (const PolicyVersion& version : published_) {
    const bool forgotten = version.step < state.remembered_from();
    expect(forgotten || state.Published(version) != nullptr, "version " + version.ToString());
  }
  return text;
}

}  // namespace thresher::sim
