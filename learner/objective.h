#pragma once

#include <cstdint>
#include <span>

namespace thresher::learner {

// The loss of a step as a sum over sequences, composed of independent choices; every sum and every
// derivative is taken in double, in token order, by closed formulas. For a token t of a sequence
// with n loss tokens let
//   l = log pi (the policy that is trained), o = log of the policy that the ratio is taken against,
//   b = log of the policy that drew the token (recorded), f = log of the reference policy,
//   A = the advantage of its sequence or its own, w = the weight of the aggregate,
//   c = the correction (a constant).
// The loss is sum_t w (c surrogate + kl k - entropy H).

struct ObjectiveSpec {
  // kSupervised: sum_t -w l times `coefficient`, over all tokens in the loss; nothing else counts.
  enum class Kind : std::uint8_t { kSupervised, kPolicyGradient };
  // What a token weighs. kTokenMean: 1 / loss tokens of the batch (DAPO, Yu et al. 2025,
  // arXiv:2503.14476, eq. 8). kSequenceMean: 1 / (sequences of the batch x n) (GRPO, Shao et al.
  // 2024, arXiv:2402.03300, eq. 3). kConstant: 1 / (sequences x longest answer allowed), whatever
  // its own length is (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783).
  enum class Aggregate : std::uint8_t { kTokenMean, kSequenceMean, kConstant };
  // kToken: r = exp(l - o) (PPO, Schulman et al. 2017, arXiv:1707.06347). kSequence: every token
  // has r = exp(mean_t (l - o)) (GSPO, Zheng et al. 2025, arXiv:2507.18071, eq. 5-7). kNone: the
  // score function; REINFORCE.
  enum class Ratio : std::uint8_t { kToken, kSequence, kNone };
  // kClip: -min(r A, clip(r) A), clip(r) = r within [1 - clip_low, 1 + clip_high] (PPO; bounds
  // apart: DAPO, eq. 10); with dual_clip = d > 0, for A < 0 at most -d A (Ye et al. 2020,
  // arXiv:1912.09729, eq. 5). kCispo: -A l clip(r), clip(r) a constant (CISPO, MiniMax 2025,
  // arXiv:2506.13585, eq. 4). kPlain: -r A, or -A l without a ratio.
  enum class Surrogate : std::uint8_t { kClip, kCispo, kPlain };
  // What o is. kBehaviour: b. kRecomputed: the policy as it was when the batch's first pass began,
  // as the learner computes it (decoupled PPO, Hilton et al. 2022, arXiv:2110.00641).
  enum class Old : std::uint8_t { kBehaviour, kRecomputed };
  // c, of q = exp(o - b) of the token, of the sequence (the product), or its geometric mean.
  // kTruncated: min(q, high). kMasked: q where low <= q <= high, else 0. (Truncated importance
  // sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
  // training"; masked, IcePop: Ling team 2025, arXiv:2510.18855.)
  enum class Correction : std::uint8_t { kNone, kTruncated, kMasked };
  enum class Level : std::uint8_t { kToken, kSequence, kGeometric };
  // Of d = l - f. kK1: d; its gradient has the mean zero, so as a loss it does nothing, and it is
  // for the reward alone (learner/reward_penalty.h). kK2: d^2 / 2. kK3: exp(-d) + d - 1 (Schulman
  // 2020, "Approximating KL divergence").
  enum class Kl : std::uint8_t { kK1, kK2, kK3 };

  // What l, o and b are log-probabilities of: the whole softmax, whatever was cut off when the
  // token was drawn, or the distribution it was drawn from (docs/objectives.md, "Sampled
  // distributions").
  enum class Distribution : std::uint8_t { kFull, kSampled };

  Kind kind = Kind::kSupervised;
  Aggregate aggregate = Aggregate::kTokenMean;
  Ratio ratio = Ratio::kToken;
  Surrogate surrogate = Surrogate::kClip;
  Old old = Old::kBehaviour;
  Correction correction = Correction::kNone;
  Level correction_level = Level::kToken;
  Kl kl_estimator = Kl::kK3;
  Distribution distribution = Distribution::kFull;
  double clip_low = 0.2;
  double clip_high = 0.2;
  double dual_clip = 0;  // 0: none; else over 1
  double correction_low = 0;
  double correction_high = 2;
  double coefficient = 1;  // kSupervised
  double kl = 0;           // of the penalty in the loss
  double entropy = 0;      // coefficient of the bonus on the entropy of each token's distribution

  // Of the tokens that are optimised at once, over all ranks; known before the backward pass.
  std::uint64_t loss_tokens = 0;
  std::uint64_t sequences = 0;
  std::uint64_t longest = 0;  // kConstant: tokens of the longest answer allowed

  // The supervised loss beside the policy's: coefficient times the mean of -l over the tokens of
  // the examples that are optimised at once, over all ranks (the PPO-ptx of Ouyang et al. 2022,
  // arXiv:2203.02155, eq. 2, with the mean in the place of the expectation).
  double example_coefficient = 0;
  std::uint64_t example_tokens = 0;
  ObjectiveSpec OfExamples() const;

  bool HasEntropyBonus() const { return kind == Kind::kPolicyGradient && entropy > 0; }
  bool OverSupports() const {
    return kind == Kind::kPolicyGradient && distribution == Distribution::kSampled;
  }
  bool NeedsReference() const { return kind == Kind::kPolicyGradient && kl > 0; }
};

// One sequence's rows. A row outside the loss takes no part, whatever stands in it: it is looked at
// before anything is computed of it.
struct SequenceTerms {
  std::span<const float> logprob;         // l [n]
  std::span<const float> behaviour;       // b [n]
  std::span<const float> old;             // o [n]; empty: l, as a constant (kRecomputed), or b
  std::span<const float> reference;       // f [n]; empty where it is not known
  std::span<const float> entropy;         // H [n], of the policy that is trained
  std::span<const std::uint8_t> in_loss;  // [n]
  double advantage = 0;
  std::span<const double> advantages{};  // [n], one for each token; empty: `advantage` for all
};

// Sums over loss tokens, which add up over sequences, leaves and ranks; statistics only.
struct ObjectiveStats {
  double loss = 0;
  double logprob = 0;
  double entropy = 0;
  double k1 = 0, k2 = 0, k3 = 0;  // of the policy against the one that drew: of d = l - b
  double reference_kl = 0;        // k3 against the reference policy
  double clipped_low = 0;         // tokens whose gradient a bound cut off, by the bound
  double clipped_high = 0;
  double ratio = 0;   // sum of r (1 without a ratio)
  double weight = 0;  // sum of importance weights pi / b of the tokens
  double weight_square = 0;
  double correction = 0;  // sum of c
  double corrected = 0;   // tokens whose c is not q: cut off or masked
  double ratio_min = 1e30, ratio_max = -1e30;
  std::uint64_t loss_tokens = 0;

  void Add(const ObjectiveStats& other);
};

// Adds the sequence's part of the loss to stats.loss and writes its derivative with regard to each
// logprob, and to each entropy where there is a bonus (else dentropy may be empty); rows outside
// the loss get 0. A derivative that is no finite number stays one and is found by who looks at the
// gradient's norm.
void AddSequence(const ObjectiveSpec& spec, const SequenceTerms& terms, std::span<float> dlogprob,
                 std::span<float> dentropy, ObjectiveStats& stats);

// The penalty of d, and its derivative.
struct KlPenalty {
  double value = 0, slope = 0;
};
KlPenalty KlPenaltyOf(ObjectiveSpec::Kl estimator, double d);

// What a token of a sequence with so many loss tokens weighs.
double TokenWeight(const ObjectiveSpec& spec, std::size_t sequence_tokens);

}  // namespace thresher::learner
