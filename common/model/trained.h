#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/config.h"
#include "common/model/forward.h"
#include "common/model/lora.h"
#include "common/model/weights.h"

namespace thresher::model {

// Whether `name` is `pattern`, in which * stands for any text, also none, and ? for one letter.
bool MatchesPattern(const std::string& pattern, const std::string& name);

// What a run trains of its model.
struct Trained {
  // Of each of ParameterList: it keeps its values for the whole run. Empty: none does.
  std::vector<bool> frozen;
  // Adapters, which are trained instead once they have begun. Nothing: there are none.
  std::optional<Lora> lora;

  // As the configuration says. Errors, naming the key: kInvalidArgument (a pattern that names no
  // parameter, nothing left to train).
  static Result<Trained> Of(const Config& config, const ModelConfig& model);

  // The parameters that are not frozen, as ParameterList has them: offsets are in the flat vector.
  std::vector<ParameterInfo> List(const ModelConfig& model) const;
};

// Which weight gradients a pass has to take when no others are used than those of `list`.
GradientNeeds NeedsOf(const ModelConfig& model, const std::vector<ParameterInfo>& list);

}  // namespace thresher::model
