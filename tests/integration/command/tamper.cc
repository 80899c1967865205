// Makes a changed copy of a run directory's records, checksums and indexes computed anew.
//   thresher-tamper RUN wipe                 tokens and logprobs of all trajectories become zeros
//   thresher-tamper RUN token ID POSITION    one token of one trajectory changes
//   thresher-tamper RUN store remove|double ID
//   thresher-tamper RUN journal remove|double|alter NUMBER
//   thresher-tamper RUN journal list
// RUN is changed in place: give a copy.
#include <algorithm>
#include <iostream>
#include <string>

#include "tests/unit/launch/run_editor.h"

namespace thresher::launch {
namespace {

Status Wipe(const std::filesystem::path& run) {
  THRESHER_ASSIGN_OR_RETURN(auto records, LoadStore(run));
  for (StoredRecord& record : records) {
    THRESHER_RETURN_IF_ERROR(EditTrajectory(record, [](Trajectory& t) {
      std::fill(t.tokens.begin(), t.tokens.end(), 0);
      std::fill(t.logprobs.begin(), t.logprobs.end(), 0.0f);
    }));
  }
  return SaveStore(run, records);
}

Status ChangeToken(const std::filesystem::path& run, const std::string& id, std::size_t position) {
  THRESHER_ASSIGN_OR_RETURN(auto records, LoadStore(run));
  for (StoredRecord& record : records) {
    if (record.id.ToString() != id) continue;
    THRESHER_RETURN_IF_ERROR(
        EditTrajectory(record, [&](Trajectory& t) { t.tokens.at(position) ^= 1; }));
    return SaveStore(run, records);
  }
  return NotFound("no trajectory " + id);
}

Status ChangeStore(const std::filesystem::path& run, const std::string& how,
                   const std::string& id) {
  THRESHER_ASSIGN_OR_RETURN(auto records, LoadStore(run));
  auto found = std::find_if(records.begin(), records.end(),
                            [&](const StoredRecord& r) { return r.id.ToString() == id; });
  if (found == records.end()) return NotFound("no trajectory " + id);
  if (how == "double") {
    records.push_back(*found);
  } else {
    records.erase(found);
  }
  return SaveStore(run, records);
}

// The smallest change of a record that means something else.
void Alter(wire::EpochStarted& r) { r.run_id.low ^= 1; }
void Alter(wire::ItemsIssued& r) { ++r.first_item; }
void Alter(wire::SampleAccepted& r) { r.reward += 1; }
void Alter(wire::SampleDropped& r) { ++r.id.sample; }
void Alter(wire::BatchComposed& r) { r.ids.pop_back(); }
void Alter(wire::StepCommitted& r) { r.state_hash.low ^= 1; }
void Alter(wire::VersionPublished& r) { r.hash.low ^= 1; }
void Alter(wire::StepsDurable& r) { r.manifest_hash.low ^= 1; }
void Alter(wire::RoundEvaluated& r) { r.digest.low ^= 1; }
void Alter(wire::RunFinished& r) { r.final_weights.low ^= 1; }

Status ChangeJournal(const std::filesystem::path& run, const std::string& how, std::size_t number) {
  THRESHER_ASSIGN_OR_RETURN(auto records, LoadJournal(run));
  if (how == "list") {
    for (std::size_t i = 0; i < records.size(); ++i) {
      std::cout << i << " " << wire::JournalRecordName(records[i]) << "\n";
    }
    return Status::Ok();
  }
  if (number >= records.size()) return OutOfRange("no record " + std::to_string(number));
  auto at = records.begin() + static_cast<std::ptrdiff_t>(number);
  if (how == "remove")
    records.erase(at);
  else if (how == "double")
    records.insert(at, *at);
  else
    std::visit([](auto& record) { Alter(record); }, *at);
  return SaveJournal(run, records);
}

Status Run(const std::vector<std::string>& words) {
  if (words.size() == 2 && words[1] == "wipe") return Wipe(words[0]);
  if (words.size() == 4 && words[1] == "token") {
    return ChangeToken(words[0], words[2], std::stoul(words[3]));
  }
  if (words.size() == 4 && words[1] == "store") return ChangeStore(words[0], words[2], words[3]);
  if (words.size() >= 3 && words[1] == "journal") {
    return ChangeJournal(words[0], words[2], words.size() > 3 ? std::stoul(words[3]) : 0);
  }
  return InvalidArgument("usage: at the top of tamper.cc");
}

}  // namespace
}  // namespace thresher::launch

int main(int argc, char** argv) {
  thresher::Status status = thresher::launch::Run({argv + 1, argv + argc});
  if (!status.ok()) std::cerr << "thresher-tamper: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}
