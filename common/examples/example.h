#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/data/data_hash.h"
#include "common/data/trajectory.h"

namespace thresher::examples {

// One sequence to learn from, as tokens. Segments tile the tokens; those with in_loss are learned,
// and the first token, which nothing predicts, lies in none of them.
struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<Segment> segments;
  std::string text;       // what is learned of it, for people; empty where it is long
  Hash128 instance_hash;  // of a trajectory's task instance; else of the tokens
  Outcome outcome;        // a trajectory's; else scored 0, "example"

  std::uint32_t LossTokens() const;
  // The record of the sample `id`: a reference trace of `task`.
  Trajectory Record(const TrajectoryId& id, const std::string& task) const;
};

// What was found in all files or folders of a source.
struct SourceCounts {
  std::uint64_t examples = 0;   // to train on
  std::uint64_t held_out = 0;   // for the evaluation loss
  std::uint64_t dropped = 0;    // too long
  std::uint64_t truncated = 0;  // too long, and cut
  // Of the examples that were looked at: see OpenOptions::trusted.
  std::uint64_t tokens = 0, loss_tokens = 0;
};

// Examples for supervised training. Item n is a pure function of configuration and files: any
// process computes any of them at any time, so nothing is stored and a run that continues goes on
// where it was. Immutable; threads share it. Reads files when it is asked.
class SupervisedSource {
 public:
  virtual ~SupervisedSource() = default;

  // Item n of the stream: weighted files in fixed proportions, each permuted anew in every epoch
  // (common/data/prompt_stream.h). Error: kDataLoss naming file and line or trajectory, when it is
  // not what it was when the source was opened; those of reading.
  virtual Result<Example> At(std::uint64_t item) const = 0;
  // Examples that are never trained on, in the order of the files; evaluated ones.
  virtual std::uint64_t held_out() const = 0;
  virtual Result<Example> HeldOut(std::uint64_t index) const = 0;

  virtual const SourceCounts& counts() const = 0;
  virtual const std::vector<DataHash>& hashes() const = 0;
};

}  // namespace thresher::examples
