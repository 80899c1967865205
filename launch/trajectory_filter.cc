#include "launch/trajectory_filter.h"

#include <cmath>
#include <cstdlib>

namespace thresher::launch {
namespace {

constexpr OutcomeKind kOutcomes[] = {OutcomeKind::kScored, OutcomeKind::kUnparsable,
                                     OutcomeKind::kTimedOut, OutcomeKind::kCrashed,
                                     OutcomeKind::kRejected};

Result<double> ParseNumber(const std::string& text, const Status& fault) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value)) return fault;
  return value;
}

}  // namespace

Result<NumberRange> ParseRange(const std::string& text, const std::string& option) {
  const Status fault =
      InvalidArgument(option + " '" + text + "': allowed: NUMBER, FROM:TO, FROM: or :TO");
  const std::size_t colon = text.find(':');
  NumberRange range;
  if (colon == std::string::npos) {
    THRESHER_ASSIGN_OR_RETURN(range.from, ParseNumber(text, fault));
    range.to = range.from;
    return range;
  }
  const std::string from = text.substr(0, colon), to = text.substr(colon + 1);
  if (from.empty() && to.empty()) return fault;
  if (!from.empty()) {
    THRESHER_ASSIGN_OR_RETURN(range.from, ParseNumber(from, fault));
  }
  if (!to.empty()) {
    THRESHER_ASSIGN_OR_RETURN(range.to, ParseNumber(to, fault));
  }
  if (range.from && range.to && *range.from > *range.to) return fault;
  return range;
}

Result<OutcomeKind> ParseOutcome(const std::string& text) {
  std::string allowed;
  for (OutcomeKind kind : kOutcomes) {
    if (text == OutcomeKindName(kind)) return kind;
    allowed += (allowed.empty() ? "" : ", ") + std::string(OutcomeKindName(kind));
  }
  return InvalidArgument("--outcome '" + text + "': allowed: " + allowed);
}

bool TrajectoryFilter::MayHold(const TrajectoryId& id) const {
  return (!stream || id.stream == *stream) && (!item || id.item == *item);
}

bool TrajectoryFilter::Holds(const Trajectory& t) const {
  return MayHold(t.id) && (!actor || t.actor.value == *actor) &&
         (!outcome || t.outcome.kind == *outcome) &&
         (reason.empty() || t.outcome.reason == reason) &&
         t.prompt_hash.ToString().starts_with(prompt_hash) && step.Holds(t.OldestVersion().step) &&
         reward.Holds(t.outcome.reward) && length.Holds(static_cast<double>(t.tokens.size()));
}

}  // namespace thresher::launch
