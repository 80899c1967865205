#include "common/data/prompt_stream.h"

#include <numeric>
#include <string>

#include "common/base/check.h"

namespace thresher {
namespace {

std::vector<std::uint32_t> Reduced(std::vector<std::uint32_t> weights) {
  THRESHER_CHECK(!weights.empty(), "no source");
  std::uint32_t divisor = 0;
  for (std::uint32_t weight : weights) {
    THRESHER_CHECK(weight > 0, "a source without weight");
    divisor = std::gcd(divisor, weight);
  }
  for (std::uint32_t& weight : weights) weight /= divisor;
  return weights;
}

// Of the sources whose share is due at turn n the one that must have its turn soonest, or it would
// fall behind by a whole item. All numbers times (2 k - 2) * total, so that they are exact.
std::uint32_t NextSource(const std::vector<std::uint32_t>& weights,
                         const std::vector<std::uint32_t>& had, std::int64_t n,
                         std::int64_t total) {
  const auto k = static_cast<std::int64_t>(weights.size());
  std::uint32_t best = 0;
  std::int64_t best_slack = 0, best_weight = 0;
  for (std::uint32_t i = 0; i < weights.size(); ++i) {
    const std::int64_t due = (2 * k - 2) * (weights[i] * n - total * had[i]);
    if (due < total) continue;
    const std::int64_t slack = total * (2 * k - 3) - due;
    const std::int64_t weight = weights[i];
    // slack / weight < best_slack / best_weight, the first source at a tie
    if (best_weight == 0 || __int128{slack} * best_weight < __int128{best_slack} * weight) {
      best = i;
      best_slack = slack;
      best_weight = weight;
    }
  }
  THRESHER_CHECK(best_weight > 0, "no source is due");
  return best;
}

}  // namespace

Interleave::Interleave(std::vector<std::uint32_t> weights) : weights_(Reduced(std::move(weights))) {
  const std::uint64_t total = std::accumulate(weights_.begin(), weights_.end(), std::uint64_t{0});
  THRESHER_CHECK(total <= kMostWeight, "weights add up to " + std::to_string(total));
  std::vector<std::uint32_t> had(weights_.size());
  for (std::uint64_t n = 1; n <= total; ++n) {
    const std::uint32_t source = weights_.size() == 1
                                     ? 0
                                     : NextSource(weights_, had, static_cast<std::int64_t>(n),
                                                  static_cast<std::int64_t>(total));
    sources_.push_back(source);
    ranks_.push_back(had[source]++);
  }
}

Interleave::Turn Interleave::At(std::uint64_t n) const {
  const std::uint64_t period = n / sources_.size();
  const std::uint64_t place = n % sources_.size();
  const std::uint32_t source = sources_[place];
  return {source, period * weights_[source] + ranks_[place]};
}

namespace {

std::vector<std::uint32_t> WeightsOf(const std::vector<PromptStream::Source>& sources) {
  std::vector<std::uint32_t> weights;
  for (const PromptStream::Source& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

PromptStream::PromptStream(std::uint64_t run_seed, Stream stream,
                           const std::vector<Source>& sources)
    : interleave_(WeightsOf(sources)) {
  for (const Source& source : sources) {
    permutations_.emplace_back(run_seed, stream, static_cast<std::uint16_t>(rows_.size()),
                               source.rows);
    rows_.push_back(source.rows);
  }
}

PromptStream::Prompt PromptStream::At(std::uint64_t item) const {
  const Interleave::Turn turn = interleave_.At(item);
  const std::uint64_t rows = rows_[turn.source];
  const std::uint64_t epoch = turn.ordinal / rows;
  return {turn.source, epoch, permutations_[turn.source].RowAt(epoch, turn.ordinal % rows)};
}

}  // namespace thresher
