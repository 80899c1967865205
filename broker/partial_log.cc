#include "broker/partial_log.h"

#include <utility>

#include "common/data/files.h"
#include "common/wire/records.h"

namespace thresher::broker {
namespace {

// Whether the sample is still to be generated, by the version that began it.
bool IsOpen(const RunState& state, const Trajectory& prefix) {
  const Slot* slot = state.groups().FindSlot(prefix.id);
  if (slot == nullptr || slot->state != Slot::State::kIssued) return false;
  return state.groups().FindGroup(GroupOf(prefix.id))->version == prefix.pinned;
}

}  // namespace

std::filesystem::path PartialsFolder(const std::filesystem::path& run) { return run / "partials"; }

Result<RecoveredPartials> ReadPartials(const std::filesystem::path& run, const RunState& state) {
  RecoveredPartials recovered;
  const auto visit = [&](const LogRecord& record) -> Status {
    if (record.kind == static_cast<std::uint32_t>(PartialKind::kTally)) {
      THRESHER_ASSIGN_OR_RETURN(recovered.tally, TokenTally::Decode(record.payload));
      return Status::Ok();
    }
    if (record.kind != static_cast<std::uint32_t>(PartialKind::kPrefix)) {
      return DataLoss(PartialsFolder(run).string() + ": a record of kind " +
                      std::to_string(record.kind));
    }
    const Result<Trajectory> prefix = wire::DecodeTrajectory(record.payload);
    if (!prefix.ok()) {
      return DataLoss(PartialsFolder(run).string() + ": " + prefix.status().ToString());
    }
    if (IsOpen(state, *prefix)) {
      recovered.partials.Adopt(prefix->id, {prefix->PolicyTokenCount(), prefix->run_identity},
                               record.payload.size(), record.position);
    }
    return Status::Ok();
  };
  const Status read = ReadRecordLog(PartialsFolder(run), visit);
  if (!read.ok() && read.code() != StatusCode::kNotFound) return read;
  return recovered;
}

Result<std::string> ReadPartial(const std::filesystem::path& run, LogPosition place) {
  std::uint32_t kind = 0;
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, ReadRecordAt(PartialsFolder(run), place, &kind));
  if (kind != static_cast<std::uint32_t>(PartialKind::kPrefix)) {
    return DataLoss(PartialsFolder(run).string() + ": no prefix at segment " +
                    std::to_string(place.segment));
  }
  return bytes;
}

Status RemovePartials(const std::filesystem::path& run) {
  const std::filesystem::path folder = PartialsFolder(run);
  for (const std::string& name : NamesIn(folder)) {
    THRESHER_RETURN_IF_ERROR(Files().Remove(folder / name));
  }
  return Status::Ok();
}

}  // namespace thresher::broker
