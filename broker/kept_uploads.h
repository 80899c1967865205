#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "broker/interval_set.h"
#include "common/base/ids.h"

namespace thresher::broker {

// Which uploads of the actors are consumed, where actors keep them until then (journal.mode off).
// A sample is open until it is settled: trained and in a durable checkpoint, evaluated, or dropped.
// An upload is consumed when none of its samples is open; that stays so for as long as its actor's
// process lives, and is told to it (wire::Consumed). A broker that starts knows of no upload and
// learns of them as they are sent again. About 100 bytes an open sample; of the consumed uploads of
// a process their numbers, as ranges. Plain data.
class KeptUploads {
 public:
  // The actor keeps the upload; of the samples in it these are open. One that is known stays as it
  // is: it came again.
  void Track(ActorId actor, std::uint64_t upload, const std::vector<TrajectoryId>& open);
  void Settle(const TrajectoryId& id);
  template <typename Predicate>
  void SettleIf(Predicate&& settled);
  // Consumed since this was asked last, by actor, ascending.
  std::map<ActorId, std::vector<std::uint64_t>> TakeNews();
  // Those of `uploads` that are consumed.
  std::vector<std::uint64_t> Consumed(ActorId actor,
                                      const std::vector<std::uint64_t>& uploads) const;
  // Its process is over, and what it kept is gone.
  void Forget(ActorId actor);

  std::size_t uploads() const { return uploads_; }         // not consumed
  std::size_t samples() const { return waiting_.size(); }  // open

 private:
  struct Account {
    std::map<std::uint64_t, std::size_t> open;  // samples, by upload
    IntervalSet consumed;
  };
  struct Upload {
    ActorId actor;
    std::uint64_t number = 0;
  };
  void CountDown(const std::vector<Upload>& uploads);

  std::map<ActorId, Account> accounts_;
  std::map<TrajectoryId, std::vector<Upload>> waiting_;  // copies of a sample may lie in several
  std::map<ActorId, std::vector<std::uint64_t>> news_;
  std::size_t uploads_ = 0;
};

template <typename Predicate>
void KeptUploads::SettleIf(Predicate&& settled) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (!settled(it->first)) {
      ++it;
      continue;
    }
    CountDown(it->second);
    it = waiting_.erase(it);
  }
}

}  // namespace thresher::broker
