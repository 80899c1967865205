#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "common/model/forward.h"

namespace thresher::model {

// The keys and values of page `from`, all layers, go to page `to`.
struct PageCopy {
  std::int32_t from = 0, to = 0;
};

// A row whose next token is drawn.
struct StepDraw {
  std::int32_t row = 0;
  RowSampling sampling;  // what it borrows: for the call
  // Tokens after which nothing of the slot is needed: a row that stands for the draw of one
  // (kDrawnBefore) need not be computed, and what it draws is anything. Borrowed for the call.
  std::span<const std::int32_t> stop = {};
};

// A token that the step before draws, for the same slot; it may not be known yet.
inline constexpr std::int32_t kDrawnBefore = -1;

// One forward pass of generation and what is drawn from it. A slot stands for a running sequence.
struct StepInput {
  std::vector<PageCopy> copies;                      // made first, in order
  std::vector<std::int32_t> token;                   // [T] ids, or kDrawnBefore
  std::vector<std::int32_t> position;                // [T]
  std::vector<std::int32_t> slot;                    // [T], in [0, StepRunner::slots())
  std::vector<std::span<const std::int32_t>> table;  // [T] page ids of the row's sequence; borrowed
                                                     // for the call
  std::vector<StepDraw> draws;                       // of different slots, rows ascending

  std::int32_t rows() const { return static_cast<std::int32_t>(token.size()); }
  void Clear();
};

// Where the engine's steps are computed: this process's CPU cores, or a GPU. Steps are computed in
// the order in which they are launched, each over the pages that those before it have left. What a
// row gives is the model function's (forward.h), whatever else is in the step. One owner, not
// thread-safe.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual std::int32_t pages() const = 0;
  virtual std::int32_t slots() const = 0;
  // How many steps may be launched and not collected. 1: kDrawnBefore is never needed.
  virtual int depth() const = 0;
  // Whether the draw can be made where kDrawnBefore finds it, so that the slot's next row can be
  // launched before this draw has been collected.
  virtual bool RunsAhead(const RowSampling& sampling) const = 0;
  // Weights of the steps to come; none is launched and not collected (checked). Errors:
  // kResourceExhausted (they do not fit; those before are in use still); the device's.
  virtual Status SetWeights(std::shared_ptr<const PackedModel> weights) = 0;
  // Puts a step behind those launched before; fewer than depth() are on their way (checked).
  // Errors: the device's; nothing can be launched any more then.
  virtual Status Launch(const StepInput& step) = 0;
  // Gives back the memory that can be taken again, KV pages among it, for others that share the
  // device; the next Launch takes it back, with pages of undefined contents. No step is on its way
  // (checked).
  virtual void Release() {}
  // Waits for the oldest step on its way (there is one: checked); its draws, in order. Errors: the
  // device's.
  virtual Result<std::vector<RowSample>> Collect() = 0;
};

// On the CPU, with the threads of `workspace`; a step is computed by Launch.
std::unique_ptr<StepRunner> MakeCpuRunner(const ModelConfig& config, std::int32_t pages,
                                          std::int32_t slots, WorkspacePtr workspace);

}  // namespace thresher::model
