#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"

namespace thresher::broker {

// Where the ranks of a learner job leave their hellos for each other. Kept by job, so that a
// restarted job never meets what an old one left; where a launcher gives every job the same name, a
// rank's new incarnation empties the place, and who waits repeats its hello (a hello that was not
// repeated within kFresh counts no more). Plain data; time is passed in; not journalled.
class RankMeeting {
 public:
  static constexpr Duration kFresh = std::chrono::seconds(10);
  static constexpr Duration kForgotten = std::chrono::minutes(30);  // since a rank last came
  static constexpr std::size_t kMaxHelloBytes = 64 << 10;

  struct Member {
    Incarnation incarnation;
    std::string hello;
    TimePoint seen{};
  };
  // By rank.
  using Members = std::map<std::uint32_t, Member>;

  // A rank comes, or comes again. All members of the job once every rank is there, the same ones
  // ever after; else null, until the next call. Error: kInvalidArgument (rank or world out of
  // range, another world than the job's, hello too long).
  Result<const Members*> Come(const std::string& job, std::uint32_t world, std::uint32_t rank,
                              const Member& member);

 private:
  struct Job {
    std::uint32_t world = 0;
    bool complete = false;
    Members members;
    TimePoint touched{};
  };

  std::map<std::string, Job> jobs_;
};

}  // namespace thresher::broker
