#pragma once

#include <string>

#include "actor/engine/generation.h"

namespace thresher::actor {

// Tells when a request's stop tokens or stop strings end its sequence (GenerationRequest). Keeps of
// the text no more than a stop string that has begun can need. Borrows the request.
class StopRules {
 public:
  explicit StopRules(const GenerationRequest& request) : request_(request) {}

  // Takes the next generated token; true: it is the last one. Not to be called after that.
  bool Ends(std::int32_t token);
  // Index of the stop string that ended it; -1: none. Of several that the same token completes, the
  // one that begins first, the longest of those.
  std::int32_t stop_string() const { return stop_string_; }

 private:
  bool TextEnds(std::int32_t token);

  const GenerationRequest& request_;
  std::string tail_;  // the end of the text so far
  std::int32_t stop_string_ = -1;
};

}  // namespace thresher::actor
