#include "common/data/trajectory_scan.h"

#include "common/data/record_log.h"
#include "common/data/trajectory_store_format.h"

namespace thresher {

Status ScanTrajectories(
    const std::filesystem::path& folder,
    const std::function<Status(const TrajectoryId&, std::string_view bytes)>& callback) {
  std::string storage;
  return ReadRecordLog(folder, [&](const LogRecord& logged) -> Status {
    auto block = trajectory_store::DecodeBlock(logged.kind, logged.payload, &storage);
    if (!block.ok()) {
      return block.status().WithContext(folder.string() + ": record " +
                                        std::to_string(logged.sequence));
    }
    for (const trajectory_store::BlockRecord& record : *block) {
      THRESHER_RETURN_IF_ERROR(callback(record.id, record.bytes));
    }
    return Status::Ok();
  });
}

}  // namespace thresher
