#include "common/model/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/data/files.h"
#include "tests/unit/data/temp_folder.h"
#include "tests/unit/model/small_model.h"

namespace thresher::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Result<GenerationDefaults> Read(const std::string& text) {
  return GenerationDefaults::FromJson(text, "m/generation_config.json", SmallConfig("llama", true));
}

// As it lies beside Qwen2.5.
TEST(GenerationDefaults, AreReadAsTheyStand) {
  const auto defaults = Read(R"({"bos_token_id": 1, "pad_token_id": 1, "do_sample": true,
      "eos_token_id": [5, 7], "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8,
      "top_k": 20, "transformers_version": "4.37.0"})");
  ASSERT_TRUE(defaults.ok()) << defaults.status().ToString();
  EXPECT_THAT(defaults->eos_ids, ElementsAre(5, 7));
  EXPECT_EQ(defaults->do_sample, true);
  EXPECT_EQ(defaults->temperature, 0.7);
  EXPECT_EQ(defaults->top_p, 0.8);
  EXPECT_EQ(defaults->top_k, 20);
  EXPECT_EQ(defaults->repetition_penalty, 1.05);
  EXPECT_FALSE(defaults->min_p.has_value());
  EXPECT_FALSE(defaults->max_new_tokens.has_value());
  EXPECT_THAT(defaults->not_applied, IsEmpty());
}

TEST(GenerationDefaults, NoEndTokenMeansThatOfTheModel) {
  EXPECT_THAT(Read("{}")->eos_ids, ElementsAre(2));
}

TEST(GenerationDefaults, WhatIsNotAppliedIsNamed) {
  const auto defaults = Read(
      R"({"num_beams": 4, "suppress_tokens": [3], "num_return_sequences": 1, "use_cache": true,
          "early_stopping": false, "bad_words_ids": [], "_from_model_config": true})");
  EXPECT_THAT(defaults->not_applied, ElementsAre("num_beams", "suppress_tokens"));
}

TEST(GenerationDefaults, NameFileKeyValueAndWhatIsAllowed) {
  struct Bad {
    const char *text, *key, *allowed;
  };
  for (const Bad& bad :
       {Bad{R"({"temperature": -1})", "temperature", "0 or above"},
        Bad{R"({"temperature": "hot"})", "temperature", "a number"},
        Bad{R"({"top_p": 0})", "top_p", "above 0, to 1"},
        Bad{R"({"top_p": 1.5})", "top_p", "above 0, to 1"},
        Bad{R"({"top_k": -1})", "top_k", "0 to"}, Bad{R"({"min_p": 2})", "min_p", "0 to 1"},
        Bad{R"({"repetition_penalty": 0})", "repetition_penalty", "above 0"},
        Bad{R"({"max_new_tokens": 0})", "max_new_tokens", "1 to"},
        Bad{R"({"do_sample": 1})", "do_sample", "true, false"},
        Bad{R"({"eos_token_id": 37})", "eos_token_id", "0 to 36"}}) {
    const auto defaults = Read(bad.text);
    EXPECT_EQ(defaults.status().code(), StatusCode::kInvalidArgument) << bad.text;
    EXPECT_THAT(defaults.status().message(), HasSubstr("m/generation_config.json: key '"));
    EXPECT_THAT(defaults.status().message(), HasSubstr(bad.key));
    EXPECT_THAT(defaults.status().message(), HasSubstr(bad.allowed)) << bad.text;
  }
  EXPECT_EQ(Read("{").status().code(), StatusCode::kDataLoss);
}

TEST(GenerationDefaults, WhatIsWrittenIsReadBack) {
  ModelConfig config = SmallConfig("llama", true);
  config.eos_ids = {3, 5};
  TempFolder folder;
  EXPECT_THAT(LoadGenerationDefaults(folder / "", config)->eos_ids, ElementsAre(3, 5));
  ASSERT_TRUE(
      WriteFileAtomic(folder / "generation_config.json", GenerationConfigJson(config)).ok());
  config.eos_ids = {1};
  EXPECT_THAT(LoadGenerationDefaults(folder / "", config)->eos_ids, ElementsAre(3, 5));
}

}  // namespace
}  // namespace thresher::model
