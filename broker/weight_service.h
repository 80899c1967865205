#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "broker/context.h"
#include "broker/run_driver.h"
#include "broker/weight_pull.h"

namespace thresher::broker {

// Weights: pulled from learner rank 0 when it publishes, announced to actors once written and
// journalled, and handed out chunk by chunk.
class WeightService {
 public:
  WeightService(BrokerContext& context, RunDriver& driver) : context_(context), driver_(driver) {}

  // Starts a transfer. A version published before (the learner trains a step again after a
  // recovery) must have the recorded hash: it is then acknowledged without a transfer or an
  // announcement; an error, which stops the run, if not.
  Status OnPublish(Peer& peer, const wire::Publish& publish);
  Status OnChunk(Peer& peer, const wire::Chunk& chunk);
  // Unknown versions are answered by a manifest of 0 bytes.
  void ServeManifest(const net::PeerAddress& peer, const wire::ManifestGet& get);
  // What cannot be read is answered by the manifest. A peer that has much on its way waits.
  void OnChunkGet(const Peer& peer, const wire::ChunkGet& get);
  // Asks for late chunks; tries again to write a transferred blob; serves who waited.
  Status Tick();
  // What a version replaces goes when the journal's group that knows the version is written:
  // before, a restart could need it. OnSeal: the group is closed; OnWritten: it is written.
  void OnSeal();
  void OnWritten();

 private:
  void ServeChunk(const net::PeerAddress& peer, const wire::ChunkGet& get);
  void Ask();
  Status Finish();
  void Acknowledge(PolicyVersion version, bool ok, const std::string& reason);

  BrokerContext& context_;
  RunDriver& driver_;
  std::unique_ptr<WeightPull> pull_;  // null: no transfer
  Incarnation from_;                  // the learner process the transfer belongs to
  TimePoint next_write_{};
  std::vector<std::pair<net::PeerAddress, wire::ChunkGet>> wanted_;  // not served for lack of room
  bool look_for_old_ = false;
  std::vector<PolicyVersion> old_;  // as of the sealed group
};

}  // namespace thresher::broker
