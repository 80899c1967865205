// The JSON files of a model folder that say what the model is. The first byte chooses. A
// configuration that is accepted must be valid, have usable frequencies, and be the same when it is
// written and read again.

#include <cmath>
#include <cstdint>
#include <string>

#include "common/base/check.h"
#include "common/model/generation_config.h"
#include "common/model/model_config.h"
#include "common/model/rope_scaling.h"

namespace {

using namespace thresher;         // NOLINT: one file, one purpose
using namespace thresher::model;  // NOLINT

void FuzzConfig(const std::string& text) {
  const auto config = ModelConfig::FromJson(text, "fuzz");
  if (!config.ok()) return;
  const Status valid = config->Validate();
  THRESHER_CHECK(valid.ok(), valid.ToString());
  const auto again = ModelConfig::FromJson(config->ToJson(), "again");
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->ToJson() == config->ToJson(), "a configuration that changes");
  for (float frequency :
       InverseFrequencies(config->head_dim, config->rope_theta, config->rope_scaling)) {
    THRESHER_CHECK(std::isfinite(frequency) && frequency >= 0, "an unusable frequency");
  }
}

void FuzzGenerationConfig(const std::string& text) {
  ModelConfig config;
  config.vocab = 1000;
  const auto defaults = GenerationDefaults::FromJson(text, "fuzz", config);
  if (!defaults.ok()) return;
  for (std::int32_t id : defaults->eos_ids) {
    THRESHER_CHECK(id >= 0 && id < config.vocab, "an end token out of range");
  }
  THRESHER_CHECK(defaults->top_p.value_or(1) > 0, "top_p of nothing");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'g') {
    FuzzGenerationConfig(text);
  } else {
    FuzzConfig(text);
  }
  return 0;
}
