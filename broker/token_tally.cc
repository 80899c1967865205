#include "broker/token_tally.h"

#include <algorithm>
#include <utility>

#include "common/data/byte_order.h"

namespace thresher::broker {
namespace {

constexpr std::size_t kHeadBytes = 2 * 8, kProcessBytes = 4 + 4 * 8;

// What a number that only grows has grown by.
std::uint64_t Growth(std::uint64_t& known, std::uint64_t now) {
  const std::uint64_t before = std::exchange(known, std::max(known, now));
  return known - before;
}

}  // namespace

void TokenTally::Speaks(ActorId actor, Incarnation incarnation) {
  Process& process = processes_[actor];
  if (process.incarnation != incarnation) {
    lost_ += process.told.unsaved;
    process = {incarnation};
  }
  process.heard = true;
}

void TokenTally::Note(ActorId actor, const Told& told) {
  auto found = processes_.find(actor);
  if (found == processes_.end()) return;
  found->second.heard = true;
  Told& known = found->second.told;
  known.unsaved = told.unsaved;
  lost_ += Growth(known.lost, told.lost);
  continued_ += Growth(known.continued, told.continued);
}

void TokenTally::Leaves(ActorId actor, std::uint64_t lost, std::uint64_t continued) {
  Note(actor, {0, lost, continued});
  processes_.erase(actor);
}

void TokenTally::Silent(ActorId actor) {
  auto found = processes_.find(actor);
  if (found != processes_.end()) found->second.heard = false;
}

std::uint64_t TokenTally::twice() const {
  std::uint64_t tokens = lost_;
  for (const auto& [actor, process] : processes_)
    tokens += process.heard ? 0 : process.told.unsaved;
  return tokens;
}

std::string TokenTally::Encode() const {
  std::string bytes;
  AppendLittle(bytes, lost_);
  AppendLittle(bytes, continued_);
  for (const auto& [actor, process] : processes_) {
    AppendLittle(bytes, actor.value);
    AppendLittle(bytes, process.incarnation.value);
    AppendLittle(bytes, process.told.unsaved);
    AppendLittle(bytes, process.told.lost);
    AppendLittle(bytes, process.told.continued);
  }
  return bytes;
}

Result<TokenTally> TokenTally::Decode(std::string_view bytes) {
  if (bytes.size() < kHeadBytes || (bytes.size() - kHeadBytes) % kProcessBytes != 0) {
    return DataLoss("a tally of " + std::to_string(bytes.size()) + " bytes");
  }
  const char* at = bytes.data();
  auto next = [&at]<typename T>(T& number) {
    number = LoadLittle<T>(at);
    at += sizeof(T);
  };
  TokenTally tally;
  next(tally.lost_);
  next(tally.continued_);
  while (at < bytes.data() + bytes.size()) {
    ActorId actor;
    next(actor.value);
    Process& process = tally.processes_[actor];
    next(process.incarnation.value);
    next(process.told.unsaved);
    next(process.told.lost);
    next(process.told.continued);
    process.heard = false;
  }
  return tally;
}

}  // namespace thresher::broker
