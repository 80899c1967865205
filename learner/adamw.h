#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/config/config.h"
#include "common/model/weights.h"
#include "common/sync/worker_pool.h"
#include "kernels/cpu/adamw.h"
#include "learner/buckets.h"

namespace thresher::learner {

// What step number `step` (from 1) of AdamW multiplies with; `keep` is that of parameters that
// decay.
kernels::AdamWFactors AdamWFactorsOf(const OptimizerConfig& options, std::uint64_t step,
                                     double learning_rate, double gradient_scale);

// AdamW over the flat parameter vector, fp32 throughout, element by element (kernels/cpu/adamw.h)
// and so independent of any cut into shards. Decay applies to the parameters that ask for it
// (matrices). Of a vector of which only some parameters are trained these alone are looked at:
// gradient and moments hold theirs, one behind the other.
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w = w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w)
// Source: Loshchilov & Hutter 2019, arXiv:1711.05101, as in torch.optim.AdamW.
class AdamW {
 public:
  // parameters: those that are trained, ascending by their offsets in the weights. shard: it moves
  // these pieces of them alone, as they lie one behind the other, and has their moments; nothing:
  // all.
  AdamW(const OptimizerConfig& options, const std::vector<model::ParameterInfo>& parameters,
        const std::optional<std::vector<Piece>>& shard = std::nullopt);

  // Elements that are trained.
  std::size_t count() const { return count_; }
  // Those of the shard, whose moments it has.
  std::size_t owned() const { return owned_; }
  // One step with gradient * `gradient_scale` (clipping). gradient: of `count` elements at least.
  // Divided over `pool` (borrowed; null: the calling thread does it all).
  void Step(std::span<float> weights, std::span<const float> gradient, double learning_rate,
            double gradient_scale, WorkerPool* pool = nullptr);

  struct State {
    std::uint64_t steps = 0;
    std::vector<float> first_moment;
    std::vector<float> second_moment;
  };
  // What a step begins from, where it is to stay as it is.
  struct Old {
    std::span<const float> weights;
    const State& state;
  };
  // The same step from `old`, with the same bits, into `weights` and this state, whatever they
  // hold: of an optimiser that trains all weights and has no shard.
  void StepFrom(const Old& old, std::span<float> weights, std::span<const float> gradient,
                double learning_rate, double gradient_scale, WorkerPool* pool = nullptr);
  const State& state() const { return state_; }
  // Of so many elements, before the first step.
  static State Fresh(std::size_t count);
  // Gives the state away; the next call is Restore. Sizes are checked.
  State Lend() { return std::exchange(state_, {}); }
  void Restore(State state);

 private:
  // What a thread takes at a time: elements of the parameters, and where their moments begin.
  struct Part {
    Piece at;
    std::size_t state;
  };

  void Run(const Old* old, std::span<float> weights, std::span<const float> gradient,
           const kernels::AdamWFactors& factors, WorkerPool* pool);
  void StepPart(const Part& mine, std::span<float> weights, std::span<const float> gradient,
                const kernels::AdamWFactors& factors);

  OptimizerConfig options_;
  std::vector<model::ParameterInfo> parameters_;
  std::size_t count_ = 0;  // of elements
  std::vector<Part> parts_;
  std::size_t owned_ = 0;  // elements of the parts
  State state_;
};

}  // namespace thresher::learner
