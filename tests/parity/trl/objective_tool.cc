// Our side of the comparison with published trainers (check_trl.py, check_verl.py): answers a JSON
// list of requests on standard input with a list of replies. Of each request:
//   "keys": {"objective.preset": "grpo", ...}   configuration over the defaults, as a run takes it
//   "advantages": {"rewards", "loss_tokens", "group_sizes"}  ->  {"advantages"} of the samples
//   "loss": [{"logprob", "behaviour", "old", "reference", "entropy", "in_loss", "advantage" or
//             "advantages"}]  ->  {"loss", "dlogprob", "dentropy"} of what is optimised at once
//   "penalty": [{"behaviour", "reference", "in_loss"}]  ->  {"penalty"} off each token's reward
//   "gains": [{"reward", "value"}]  ->  {"advantage", "target"} of tokens by a critic, whitened
//   "value_loss": [{"value", "first", "target"}]  ->  {"loss", "slope"} of each token
//   "overlong": {"lengths", "longest", "buffer"}  ->  {"penalty"}
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/config/config.h"
#include "learner/objective_config.h"
#include "learner/reward_penalty.h"
#include "learner/value.h"

namespace thresher::learner {
namespace {

using nlohmann::json;

template <typename T>
std::vector<T> List(const json& object, const char* name) {
  return object.value(name, std::vector<T>());
}

Config ConfigOf(const json& request) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : request.at("keys").items()) {
    keys.push_back(key + "=" + value.get<std::string>());
  }
  return ParseConfig("", "keys", keys);
}

json AdvantagesReply(const Config& config, const json& asked) {
  const auto rewards = List<double>(asked, "rewards");
  const auto tokens = List<std::uint64_t>(asked, "loss_tokens");
  std::vector<Scored> samples;
  for (std::size_t i = 0; i < rewards.size(); ++i) samples.push_back({rewards[i], tokens.at(i)});
  return {
      {"advantages", Advantages(EstimatorOf(config.objective), samples,
                                List<std::size_t>(asked, "group_sizes"), config.objective.accept)}};
}

// One sequence, with what its derivatives are written to.
struct Sequence {
  std::vector<float> logprob, behaviour, old, reference, entropy;
  std::vector<std::uint8_t> in_loss;
  std::vector<double> advantages;
  double advantage = 0;
  std::vector<float> dlogprob, dentropy;

  explicit Sequence(const json& from)
      : logprob(List<float>(from, "logprob")),
        behaviour(List<float>(from, "behaviour")),
        old(List<float>(from, "old")),
        reference(List<float>(from, "reference")),
        entropy(List<float>(from, "entropy")),
        in_loss(List<std::uint8_t>(from, "in_loss")),
        advantages(List<double>(from, "advantages")),
        advantage(from.value("advantage", 0.0)),
        dlogprob(logprob.size()),
        dentropy(logprob.size()) {}

  SequenceTerms Terms() const {
    return {logprob, behaviour, old, reference, entropy, in_loss, advantage, advantages};
  }
  std::uint64_t loss_tokens() const {
    return static_cast<std::uint64_t>(std::ranges::count(in_loss, 1));
  }
};

// Counts as a step's batch does: sequences without loss tokens are none.
json LossReply(const Config& config, const json& asked) {
  ObjectiveSpec spec = PolicyObjective(config);
  std::vector<Sequence> sequences(asked.begin(), asked.end());
  for (const Sequence& s : sequences) {
    spec.loss_tokens += s.loss_tokens();
    spec.sequences += s.loss_tokens() > 0 ? 1 : 0;
  }
  ObjectiveStats stats;
  json dlogprob = json::array(), dentropy = json::array();
  for (Sequence& s : sequences) {
    AddSequence(spec, s.Terms(), s.dlogprob, s.dentropy, stats);
    dlogprob.push_back(s.dlogprob);
    dentropy.push_back(s.dentropy);
  }
  return {{"loss", stats.loss}, {"dlogprob", dlogprob}, {"dentropy", dentropy}};
}

json PenaltyReply(const Config& config, const json& asked) {
  json penalty = json::array();
  for (const json& from : asked) {
    TrainSequence sequence;
    sequence.behaviour_logprob = List<float>(from, "behaviour");
    sequence.in_loss = List<std::uint8_t>(from, "in_loss");
    penalty.push_back(PenaltyOf(config.objective, sequence, List<float>(from, "reference")));
  }
  return {{"penalty", penalty}};
}

json GainsReply(const Config& config, const json& asked) {
  std::vector<TokenGains> all;
  std::vector<std::vector<double>> values;
  GainSums sums;
  for (const json& from : asked) {
    values.push_back(List<double>(from, "value"));
    all.push_back(GeneralisedAdvantages(List<double>(from, "reward"), values.back(),
                                        config.objective.gamma, config.objective.gae_lambda));
    sums.Add(SumsOf(all.back(), values.back()));
  }
  GainSquares squares;
  for (std::size_t i = 0; i < all.size(); ++i) squares.Add(SquaresOf(all[i], values[i], sums));
  json advantage = json::array(), target = json::array();
  for (TokenGains& gains : all) {
    for (double& a : gains.advantage) a = Whitened(a, sums, squares);
    advantage.push_back(gains.advantage);
    target.push_back(gains.target);
  }
  return {{"advantage", advantage}, {"target", target}};
}

json ValueLossReply(const Config& config, const json& asked) {
  json loss = json::array(), slope = json::array();
  for (const json& from : asked) {
    const ValueLoss part = ValueLossOf(from.at("value"), from.at("first"), from.at("target"),
                                       config.objective.value_clip);
    loss.push_back(part.loss);
    slope.push_back(part.slope);
  }
  return {{"loss", loss}, {"slope", slope}};
}

json OverlongReply(const json& asked) {
  json penalty = json::array();
  for (std::uint64_t length : List<std::uint64_t>(asked, "lengths")) {
    penalty.push_back(OverlongPenalty(length, asked.at("longest"), asked.at("buffer")));
  }
  return {{"penalty", penalty}};
}

json Reply(const json& request) {
  const Config config = ConfigOf(request);
  if (request.contains("advantages")) return AdvantagesReply(config, request["advantages"]);
  if (request.contains("loss")) return LossReply(config, request["loss"]);
  if (request.contains("penalty")) return PenaltyReply(config, request["penalty"]);
  if (request.contains("gains")) return GainsReply(config, request["gains"]);
  if (request.contains("value_loss")) return ValueLossReply(config, request["value_loss"]);
  return OverlongReply(request.at("overlong"));
}

}  // namespace
}  // namespace thresher::learner

int main() {
  using nlohmann::json;
  try {
    json replies = json::array();
    for (const json& request : json::parse(std::cin)) {
      replies.push_back(thresher::learner::Reply(request));
    }
    std::cout << replies << "\n";
  } catch (const std::exception& error) {
    std::cerr << "objective_tool: " << error.what() << "\n";
    return 1;
  }
}
