#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "broker/context.h"
#include "broker/rank_meeting.h"
#include "broker/run_driver.h"

namespace thresher::broker {

// The learner's side: batches out, committed steps and checkpoints in.
class LearnerService {
 public:
  LearnerService(BrokerContext& context, RunDriver& driver)
      : context_(context), driver_(driver), begun_(context.Now()) {}

  // Parts of leaves are a pure function of (step, leaf, part) once the batch is composed, until it
  // is forgotten (RunState). A fetch that comes too early waits a little, then gets NotReady. A
  // rank that keeps asking for what is forgotten is refused: its checkpoint is too old.
  Status OnFetchLeaf(Peer& peer, const wire::FetchLeaf& fetch);
  // Commits the step; or, after a learner recovery, proves that the retrained step reached the
  // recorded state. An error when digest, chain or state differ: the run must not go on.
  Status OnStepDone(Peer& peer, const wire::StepDone& done);
  // The checkpoint must contain what was committed. Error when its chain differs.
  Status OnCheckpointDone(Peer& peer, const wire::CheckpointDone& done);
  // Hands every rank's hello to all of them once the last has come. A rank that does not fit is
  // refused.
  void OnRanksMeet(Peer& peer, const wire::RanksMeet& meet);
  // Answers waiting fetches. A rank that waits for a batch while another one of its job is not
  // heard of is refused: its job has to start again, and it would wait for ever.
  Status Tick();

 private:
  struct Waiting {
    std::uint32_t rank = 0;
    Incarnation incarnation;
    wire::FetchLeaf fetch;
    TimePoint until{};
  };

  // What a leaf holds, and the first record of each of its parts.
  struct LeafCut {
    std::vector<TrajectoryId> ids;
    std::vector<std::size_t> parts;
  };
  Result<const LeafCut*> CutOf(const wire::FetchLeaf& fetch);
  Result<std::vector<SharedBytes>> RecordsOf(const LeafCut& cut, std::uint32_t part);
  // Of the leaf's samples those whose bytes died with an earlier broker (journal.mode off).
  bool Lacks(const wire::FetchLeaf& fetch) const;
  void NoteLost(const wire::FetchLeaf& fetch);
  // A frame that was on its way for long asks once for what a checkpoint contains; a rank that fell
  // back behind it asks again and again.
  bool IsMeant(const Peer& peer, const wire::FetchLeaf& fetch);
  std::vector<TrajectoryId> LeafIds(const wire::FetchLeaf& fetch) const;
  // False: bytes that the cache had no room for are not written yet, or bytes are lost and have to
  // come again, or much is on its way already.
  Result<bool> Serve(const Peer& peer, const wire::FetchLeaf& fetch);
  void AnswerForgotten(const Peer& peer, const wire::FetchLeaf& fetch);
  // Why the job of `peer` cannot go on, or empty.
  std::string LostRank(const Peer& peer) const;
  Status CheckAgainstBatch(const wire::StepDone& done) const;
  Status Commit(const wire::StepDone& done);
  void NoteMismatches(const wire::StepDone& done);

  BrokerContext& context_;
  RunDriver& driver_;
  TimePoint begun_;
  std::vector<Waiting> waiting_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, LeafCut> cuts_;  // of step and leaf
  std::map<std::uint32_t, TimePoint> behind_;     // since when a rank asks for durable steps only
  std::map<std::uint32_t, TimePoint> forgotten_;  // since when a rank asks for forgotten steps only
  RankMeeting meeting_;
  // The first step this incarnation of rank 0 has not reported: a second report is a resend.
  Incarnation reporter_;
  std::uint32_t next_report_ = 0;
  std::map<std::string, double> last_metrics_;

 public:
  // Of the newest reported step, by the learner's names.
  const std::map<std::string, double>& last_metrics() const { return last_metrics_; }
};

}  // namespace thresher::broker
