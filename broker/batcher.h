#pragma once

#include <cstdint>
#include <vector>

#include "broker/group_assembler.h"
#include "common/base/ids.h"
#include "common/config/plan.h"
#include "common/wire/records.h"

namespace thresher::broker {

// What a training step does with its complete groups: which samples leave, and the batch.
struct Composition {
  std::vector<wire::SampleDropped> drops;
  wire::BatchComposed batch;
};

// Where a step stands whose batch is not composed.
enum class StepStage {
  kWaiting,    // nothing is issued, or samples are outstanding
  kNextRound,  // dynamic sampling: every issued round is complete, and they are not enough
  kShort,      // the same, and there are no more rounds
  kReady,
};
StepStage StageOf(const GroupAssembler& groups, const StepPlan& step);
// Rounds of the step that are open.
std::uint32_t RoundsIssued(const GroupAssembler& groups, std::uint32_t step);
// Its groups that may be trained: every sample arrived, and their rewards differ.
std::uint32_t InformativeGroups(const GroupAssembler& groups, const StepPlan& step);

// Composes the batch of a step whose issued rounds are complete (checked). A pure function of the
// samples: the order of arrival has no part in it.
//   - a group with a dropped sample is not trained: its other samples leave as kNotSelected (an
//     advantage over a smaller group would be another estimator, and one chosen by a deadline);
//   - in RL, with `drop_zero_variance`, a group whose rewards are all equal leaves as kZeroVariance
//     (its advantages are zero);
//   - with dynamic sampling, what comes in issue order after the first `step.items` groups that may
//     be trained leaves as kSurplus;
//   - the rest is the batch, in canonical order (item, sample).
// Called again after a part of its drops was applied (a crash between two records), it returns the
// rest of the drops and the same batch.
Composition ComposeBatch(const GroupAssembler& groups, const StepPlan& step, std::uint32_t lineage,
                         bool drop_zero_variance);

// The samples of one gradient leaf: those whose item has an ordinal within the step that lies in
// GradientLeaf(items, leaves, leaf). Dropped groups leave holes and move nothing; with dynamic
// sampling the ordinal is that of the group in the batch.
std::vector<TrajectoryId> LeafOf(const std::vector<TrajectoryId>& batch, const StepPlan& step,
                                 std::uint32_t leaves, std::uint32_t leaf);

// Cuts records of the given sizes into consecutive parts of at most `max_part_bytes` (a larger
// single record is a part of its own). Returns the first record of each part; never empty: a leaf
// without records has one empty part.
std::vector<std::size_t> CutParts(const std::vector<std::size_t>& sizes,
                                  std::size_t max_part_bytes);

}  // namespace thresher::broker
