#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/data/trajectory.h"
#include "common/wire/records.h"

namespace thresher::testing {

// What a journal record is about, as the audit names it: "train/0/3/1", "step 4", "0.33".
std::string SubjectOf(const wire::JournalRecord& record);

// The fields that AlterField knows, by name.
std::vector<std::string> FieldsOf(const wire::JournalRecord& record);

// Gives `field` another, still plausible value. False when the record has no such field.
bool AlterField(wire::JournalRecord& record, const std::string& field);

// Tokens, logprobs and text of all positions as if they had never been written; what says which
// sample it is, and by which weights, stays.
void Wipe(Trajectory& trajectory);

// Changes one field ("token" and "logprob" at `index` among the policy tokens). False when there is
// no such field or position.
bool AlterField(Trajectory& trajectory, const std::string& field, std::size_t index);

}  // namespace thresher::testing
