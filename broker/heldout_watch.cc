#include "broker/heldout_watch.h"

#include <cmath>

namespace thresher::broker {

double HeldoutWatch::share() const { return std::ldexp(1.0, -static_cast<int>(halvings_)); }

void HeldoutWatch::Note(const Hash128& instance, std::uint8_t use) {
  if (instance.IsZero() || !Watched(instance)) return;
  std::uint8_t& uses = uses_[instance];
  const bool was_both = uses == (kTrained | kEvaluated);
  uses |= use;
  if (!was_both && uses == (kTrained | kEvaluated)) ++overlap_;
  while (uses_.size() > most_ && halvings_ < 63) {
    ++halvings_;
    std::erase_if(uses_, [&](const auto& entry) { return !Watched(entry.first); });
  }
}

}  // namespace thresher::broker
