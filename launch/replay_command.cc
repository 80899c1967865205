#include <bit>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/base/random.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"
#include "launch/commands.h"
#include "launch/replay.h"

namespace thresher::launch {
namespace {

using nlohmann::json;

Result<Trajectory> ReadRecord(const TrajectoryStoreReader& store, const TrajectoryId& id) {
  auto entry = store.Find(id);
  if (entry.status().code() == StatusCode::kNotFound && store.deleted_some()) {
    return FailedPrecondition(entry.status().message());  // outside what is kept
  }
  if (!entry.ok()) return entry.status();
  THRESHER_ASSIGN_OR_RETURN(std::string bytes, store.Read(*entry));
  return wire::DecodeTrajectory(bytes);
}

// `count` distinct generated trajectories, by the run-independent seed.
Result<std::vector<TrajectoryId>> ChooseIds(const TrajectoryStoreReader& store, int count,
                                            std::uint64_t seed) {
  std::vector<TrajectoryId> ids;
  THRESHER_RETURN_IF_ERROR(store.ForEach([&](const TrajectoryStoreReader::Entry& entry) {
    if (entry.id.stream != Stream::kSupervised) ids.push_back(entry.id);
    return Status::Ok();
  }));
  RandomSequence random(seed, TrajectoryId{Stream::kUser, 0, 0, 0}, RandomPurpose::kBootstrap);
  std::size_t wanted = std::min<std::size_t>(static_cast<std::size_t>(count), ids.size());
  for (std::size_t i = 0; i < wanted; ++i) {
    std::swap(ids[i], ids[i + random.Below(ids.size() - i)]);
  }
  ids.resize(wanted);
  return ids;
}

json Describe(const Trajectory& replayed, const std::string& difference) {
  json bits = json::array();
  for (float logprob : replayed.logprobs) bits.push_back(std::bit_cast<std::uint32_t>(logprob));
  return {{"id", replayed.id.ToString()},   {"equal", difference.empty()},
          {"difference", difference},       {"tokens", replayed.tokens},
          {"logprob_bits", bits},           {"version", replayed.OldestVersion().ToString()},
          {"score", replayed.outcome.score}};
}

// The command as a Status so that every failure is told the same way; `equal` collects the answer.
Status ReplayAll(const ReplayOptions& options, bool& equal) {
  THRESHER_ASSIGN_OR_RETURN(auto replayer, Replayer::Open(options.run, options.device));
  std::filesystem::path folder = options.run;
  THRESHER_ASSIGN_OR_RETURN(auto store, TrajectoryStoreReader::Open(folder / "trajectories"));
  std::unique_ptr<TrajectoryStoreReader> original;
  if (!options.against.empty()) {
    std::filesystem::path other = options.against;
    THRESHER_ASSIGN_OR_RETURN(original, TrajectoryStoreReader::Open(other / "trajectories"));
  }
  std::vector<TrajectoryId> ids;
  for (const std::string& text : options.ids) {
    THRESHER_ASSIGN_OR_RETURN(TrajectoryId id, TrajectoryId::Parse(text));
    ids.push_back(id);
  }
  if (options.random > 0) {
    THRESHER_ASSIGN_OR_RETURN(ids, ChooseIds(*store, options.random, options.seed));
  }
  if (ids.empty()) return NotFound("no trajectory to replay in " + options.run);
  for (const TrajectoryId& id : ids) {
    THRESHER_ASSIGN_OR_RETURN(Trajectory record, ReadRecord(*store, id));
    THRESHER_ASSIGN_OR_RETURN(Trajectory replayed, replayer->Replay(record));
    if (original) {
      THRESHER_ASSIGN_OR_RETURN(record, ReadRecord(*original, id));
    }
    std::string difference = FirstDifference(record, replayed);
    equal &= difference.empty();
    if (options.json) {
      std::cout << Describe(replayed, difference).dump() << "\n";
    } else {
      std::cout << id.ToString() << ": "
                << (difference.empty()
                        ? std::to_string(record.tokens.size()) + " tokens and " +
                              std::to_string(record.logprobs.size()) + " logprobs equal"
                        : "differs at " + difference)
                << "\n";
    }
  }
  return Status::Ok();
}

}  // namespace

int ReplayCommand(const ReplayOptions& options) {
  bool equal = true;
  Status status = ReplayAll(options, equal);
  if (!status.ok()) {
    bool usage =
        status.code() == StatusCode::kNotFound || status.code() == StatusCode::kInvalidArgument;
    return Report(status, usage ? kExitUsage : kExitFailure);
  }
  return equal ? kExitOk : kExitDoesNotHold;
}

}  // namespace thresher::launch
