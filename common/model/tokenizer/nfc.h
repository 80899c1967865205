#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace thresher::model {

// Normalization Form C over the characters of Unicode 9.0, the version that the `tokenizers`
// package normalises by: later characters stay as they are, whatever version the system's ICU has.
// Immutable; threads share it.
class Nfc {
 public:
  // Error: kInternal (ICU without its data).
  static Result<std::unique_ptr<const Nfc>> Make();
  virtual ~Nfc() = default;
  // `text`: UTF-8 without errors.
  virtual std::string Normalize(std::string_view text) const = 0;
};

}  // namespace thresher::model
