#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actor/tasks/options.h"
#include "actor/tasks/verdict.h"
#include "common/base/ids.h"
#include "common/base/random.h"
#include "common/base/status.h"

namespace thresher::tasks {

// One instance of a task.
struct Item {
  Stream stream = Stream::kTrain;
  std::uint64_t index = 0;            // ordinal within the stream
  std::string canonical;              // equal for instances that are the same up to presentation
  Hash128 canonical_hash;             // of `canonical`; the key of every overlap check
  std::string prompt;                 // what the model reads
  std::vector<std::int64_t> numbers;  // given numbers in the prompt's order
  std::int64_t target = 0;
  int level = 0;  // difficulty for statistics: the count of given numbers
};

// A task with verifiable answers. Every method is a pure function of its arguments and the options
// the environment was made with: no clock, no I/O, no state; all may be called from any thread.
// Texts are ASCII and made of alphabet() only.
class Environment {
 public:
  virtual ~Environment() = default;

  virtual const std::string& name() const = 0;
  // Every character of prompts and traces, once each, ascending.
  virtual const std::string& alphabet() const = 0;
  // Upper bounds over all items, in characters: of prompts, and of references, off-target games and
  // random games (a perturbed trace may be up to twice as long).
  virtual int MaxPromptChars() const = 0;
  virtual int MaxTraceChars() const = 0;

  // Item `index` of `stream` (index <= TrajectoryId::kMaxItem). Stream kEval draws from the
  // held-out split, all others from the train split; the split is a function of the canonical
  // instance alone, whatever the seed. The item is solvable. Bounded time.
  virtual Item Generate(std::uint64_t seed, Stream stream, std::uint64_t index) const = 0;

  // Judges `text`, what the model wrote after the prompt (end-of-sequence token removed). Total:
  // any bytes, any length; time linear in the trace bound, not in `text`.
  virtual Verdict Verify(const Item& item, std::string_view text) const = 0;

  // A correct trace: Verify scores it 1. Where there are several, one at random.
  virtual std::string Reference(const Item& item, RandomSequence& random) const = 0;
  // A reference with a random local change, or a legal game that misses: Verify does not score
  // it 1.
  virtual std::string Perturb(const Item& item, RandomSequence& random) const = 0;
  // The uniformly random legal player: at every turn each distinct legal step is equally likely; it
  // ends when the task's rules say so. Always legal, seldom right: the floor of the task.
  virtual std::string RandomPolicy(const Item& item, RandomSequence& random) const = 0;
  // A legal complete game whose result is not the target, in the form of a reference for some other
  // target: for supervised starts that are weak on purpose.
  virtual std::string OffTarget(const Item& item, RandomSequence& random) const = 0;
};

// Builds the environment `options.name`. Error: kInvalidArgument naming the key (task.*), its value
// and what is allowed; also when the options leave the train or the held-out split (nearly) empty.
// Thread-safe. Draws instances to check the splits: milliseconds, or a few seconds where a window
// of solutions of 6 numbers is seldom met.
Result<std::unique_ptr<Environment>> MakeEnvironment(const TaskOptions& options);

}  // namespace thresher::tasks
