#include "broker/rank_meeting.h"

namespace thresher::broker {

Result<const RankMeeting::Members*> RankMeeting::Come(const std::string& job, std::uint32_t world,
                                                      std::uint32_t rank, const Member& member) {
  if (rank >= world) {
    return InvalidArgument("rank " + std::to_string(rank) + " of " + std::to_string(world) +
                           " learner ranks");
  }
  if (member.hello.size() > kMaxHelloBytes) {
    return InvalidArgument("a rank's hello of " + std::to_string(member.hello.size()) + " bytes");
  }
  const TimePoint now = member.seen;
  std::erase_if(jobs_, [&](const auto& entry) { return now - entry.second.touched > kForgotten; });
  Job& place = jobs_[job];
  if (place.members.empty()) place.world = world;
  if (place.world != world) {
    return InvalidArgument("learner job '" + job + "' has " + std::to_string(place.world) +
                           " ranks, rank " + std::to_string(rank) + " says " +
                           std::to_string(world));
  }
  place.touched = now;
  const auto before = place.members.find(rank);
  const bool known =
      before != place.members.end() && before->second.incarnation == member.incarnation;
  if (place.complete && known) return &place.members;
  const bool restarted = before != place.members.end() && !known;
  if (restarted) place = Job{world, false, {}, now};
  place.members[rank] = member;
  std::erase_if(place.members, [&](const auto& entry) { return now - entry.second.seen > kFresh; });
  place.complete = place.members.size() == world;
  return place.complete ? &place.members : nullptr;
}

}  // namespace thresher::broker
