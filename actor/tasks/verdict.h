#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/data/trajectory.h"

namespace thresher::tasks {

// What a verifier says about one answer. A pure function of the item and the text.
struct Verdict {
  // kScored: the answer was understood and judged. kUnparsable: it is not in the answer's language;
  // `score` is 0 and what it counts as in training is the configuration's affair.
  OutcomeKind kind = OutcomeKind::kUnparsable;
  double score = 0;    // 1 for a correct answer, else 0
  std::string reason;  // a closed code, listed in the README: "solved", "wrong_target", ...
  std::string detail;  // one line for people: which step, which number
  std::string parsed;  // the answer in canonical form as far as it was understood
  // "well_formed", "legal", "solved", each 0 or 1. Shaping may use them; `score` does not.
  std::vector<std::pair<std::string, double>> subscores;
};

}  // namespace thresher::tasks
