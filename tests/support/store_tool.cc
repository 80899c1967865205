// store-tool: changes the contents of a copy of a run and makes everything derived from them fit
// again (checksums, chain, content hashes, index), as somebody who forges records would.
//
//   store-tool trajectories FOLDER list
//   store-tool trajectories FOLDER wipe
//   store-tool trajectories FOLDER remove|double ID
//   store-tool trajectories FOLDER alter ID FIELD [POLICY-TOKEN]
//   store-tool journal FOLDER list
//   store-tool journal FOLDER remove|double NUMBER
//   store-tool journal FOLDER alter NUMBER FIELD
//
// FOLDER is rewritten as a whole: files that are linked elsewhere stay as they are. Exit 0, or 2
// with the reason on standard error.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <span>

#include "common/data/record_log.h"
#include "common/data/trajectory_store.h"
#include "common/wire/records.h"
#include "tests/support/record_edits.h"

namespace thresher::testing {
namespace {

using Words = std::span<const std::string>;
constexpr std::size_t kBlockRecords = 64;

// Replaces `folder` by what `write` puts into an empty one beside it.
Status Rewrite(const std::filesystem::path& folder, auto write) {
  std::filesystem::path fresh = folder.string() + ".new";
  std::filesystem::remove_all(fresh);
  THRESHER_RETURN_IF_ERROR(write(fresh));
  std::filesystem::remove_all(folder);
  std::filesystem::rename(fresh, folder);
  return Status::Ok();
}

// ---- trajectories

Result<std::vector<Trajectory>> ReadTrajectories(const std::filesystem::path& folder) {
  THRESHER_ASSIGN_OR_RETURN(auto store, TrajectoryStoreReader::Open(folder));
  std::vector<Trajectory> all;
  Status status = store->ReadAll([&](const auto&, std::string_view bytes) -> Status {
    THRESHER_ASSIGN_OR_RETURN(Trajectory trajectory, wire::DecodeTrajectory(bytes));
    all.push_back(std::move(trajectory));
    return Status::Ok();
  });
  if (!status.ok()) return status;
  return all;
}

Status WriteTrajectories(const std::filesystem::path& folder, const std::vector<Trajectory>& all) {
  THRESHER_ASSIGN_OR_RETURN(auto store, TrajectoryStoreWriter::Open(folder, RecordLogOptions{}));
  std::vector<StoredRecord> block;
  for (const Trajectory& t : all) {
    block.push_back({t.id, t.ContentHash(), wire::EncodeTrajectory(t)});
    if (block.size() < kBlockRecords) continue;
    THRESHER_RETURN_IF_ERROR(store->AppendBlock(block).status());
    block.clear();
  }
  THRESHER_RETURN_IF_ERROR(store->AppendBlock(block).status());
  return store->WriteIndex();
}

Status EditTrajectories(std::vector<Trajectory>& all, Words words) {
  if (words[0] == "wipe") {
    for (Trajectory& trajectory : all) Wipe(trajectory);
    return Status::Ok();
  }
  if (words.size() < 2) return InvalidArgument("an id is missing");
  THRESHER_ASSIGN_OR_RETURN(TrajectoryId id, TrajectoryId::Parse(words[1]));
  auto found = std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.id == id; });
  if (found == all.end()) return NotFound("no trajectory " + words[1]);
  if (words[0] == "remove") {
    all.erase(found);
  } else if (words[0] == "double") {
    all.push_back(Trajectory(*found));
  } else if (words[0] == "alter" && words.size() >= 3) {
    std::size_t index = words.size() > 3 ? std::strtoul(words[3].c_str(), nullptr, 10) : 0;
    if (!AlterField(*found, words[2], index)) return NotFound("no field " + words[2]);
  } else {
    return InvalidArgument("unknown action " + words[0]);
  }
  return Status::Ok();
}

Status Trajectories(const std::filesystem::path& folder, Words words) {
  THRESHER_ASSIGN_OR_RETURN(std::vector<Trajectory> all, ReadTrajectories(folder));
  if (words[0] == "list") {
    for (const Trajectory& t : all) {
      std::printf("%s %zu %u\n", t.id.ToString().c_str(), t.tokens.size(), t.PolicyTokenCount());
    }
    return Status::Ok();
  }
  THRESHER_RETURN_IF_ERROR(EditTrajectories(all, words));
  return Rewrite(folder, [&](const auto& fresh) { return WriteTrajectories(fresh, all); });
}

// ---- journal

struct Logged {
  std::uint32_t kind = 0;
  wire::JournalRecord record;
};

Result<std::vector<Logged>> ReadJournal(const std::filesystem::path& folder) {
  std::vector<Logged> all;
  Status status = ReadRecordLog(folder, [&](const LogRecord& logged) -> Status {
    THRESHER_ASSIGN_OR_RETURN(auto record, wire::DecodeJournalRecord(logged.payload));
    all.push_back({logged.kind, std::move(record)});
    return Status::Ok();
  });
  if (!status.ok()) return status;
  return all;
}

Status WriteJournal(const std::filesystem::path& folder, const std::vector<Logged>& all) {
  THRESHER_ASSIGN_OR_RETURN(auto log, RecordLogWriter::Open(folder, RecordLogOptions{}));
  for (const Logged& entry : all) {
    auto at = log.Append(entry.kind, wire::EncodeJournalRecord(entry.record));
    if (!at.ok()) return at.status();
  }
  return log.Flush(true);
}

// "NUMBER KIND FIELD,FIELD,... SUBJECT"
void ListJournal(const std::vector<Logged>& all) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string fields;
    for (const std::string& name : FieldsOf(all[i].record)) {
      fields += (fields.empty() ? "" : ",") + name;
    }
    std::printf("%zu %s %s %s\n", i, wire::JournalRecordName(all[i].record), fields.c_str(),
                SubjectOf(all[i].record).c_str());
  }
}

Status Journal(const std::filesystem::path& folder, Words words) {
  THRESHER_ASSIGN_OR_RETURN(std::vector<Logged> all, ReadJournal(folder));
  if (words[0] == "list") {
    ListJournal(all);
    return Status::Ok();
  }
  if (words.size() < 2) return InvalidArgument("a record's number is missing");
  std::size_t number = std::strtoul(words[1].c_str(), nullptr, 10);
  if (number >= all.size()) return NotFound("no record " + words[1]);
  auto found = all.begin() + static_cast<std::ptrdiff_t>(number);
  if (words[0] == "remove") {
    all.erase(found);
  } else if (words[0] == "double") {
    all.insert(found, Logged(*found));
  } else if (words[0] == "alter" && words.size() == 3) {
    if (!AlterField(found->record, words[2])) return NotFound("no field " + words[2]);
  } else {
    return InvalidArgument("unknown action " + words[0]);
  }
  return Rewrite(folder, [&](const auto& fresh) { return WriteJournal(fresh, all); });
}

int Main(const std::vector<std::string>& words) {
  Status status = InvalidArgument("usage: store-tool trajectories|journal FOLDER ACTION ...");
  if (words.size() >= 3 && words[0] == "trajectories") {
    status = Trajectories(words[1], Words(words).subspan(2));
  } else if (words.size() >= 3 && words[0] == "journal") {
    status = Journal(words[1], Words(words).subspan(2));
  }
  if (status.ok()) return 0;
  std::cerr << "store-tool: " << status.ToString() << "\n";
  return 2;
}

}  // namespace
}  // namespace thresher::testing

int main(int argc, char** argv) {
  return thresher::testing::Main(std::vector<std::string>(argv + 1, argv + argc));
}
