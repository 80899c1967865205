#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "broker/context.h"
#include "broker/run_driver.h"

namespace thresher::broker {

// Trajectories in, and word of samples that will not come.
class UploadService {
 public:
  UploadService(BrokerContext& context, RunDriver& driver) : context_(context), driver_(driver) {}

  // Whether the upload is within its actor's credit. One that is not is not looked at: it is sent
  // again.
  bool Admit(Peer& peer, const wire::Upload& upload);
  // Whether a large frame from here is not worth a look: this actor keeps sending what is refused,
  // which it may do now and then. The others' frames come first.
  bool Floods(const net::PeerAddress& address);
  // Sets *wanted when a record of it was accepted.
  Status OnUpload(Peer& peer, const wire::Upload& upload, bool* wanted);
  Status OnSampleFailed(Peer& peer, const wire::SampleFailed& failed);
  // Tells actors which of the uploads they keep are consumed (journal.mode off).
  void TellConsumed();

 private:
  // `*id`: of a finished record.
  wire::UploadVerdict TakeRecord(Peer& peer, const SharedBytes& bytes, std::string* reason,
                                 std::optional<TrajectoryId>* id, Status* fatal);
  // What there is of an unfinished sample: kept if it is longer than what was, whoever has the
  // lease now.
  wire::UploadVerdict TakePrefix(Peer& peer, const wire::TrajectoryView& prefix,
                                 const SharedBytes& bytes, std::string* reason);
  // A copy of what is accepted, whose bytes may be here no longer.
  void TakeAgain(const TrajectoryId& id, const SharedBytes& bytes, const ArrayRanges& arrays);
  // The actor keeps the upload, of which these samples are accepted.
  void NoteKept(const Peer& peer, const wire::Upload& upload, const std::vector<TrajectoryId>& ids);
  void NoteRefusal(Peer& peer, std::size_t bytes, const std::string& reason);
  void NoteRefused(Peer& peer, std::size_t bytes);

  BrokerContext& context_;
  RunDriver& driver_;
};

}  // namespace thresher::broker
