#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/backend/backend.h"
#include "common/data/json.h"
#include "launch/commands.h"
#include "launch/compute.h"
#include "launch/json_tokens.h"
#include "launch/policy.h"
#include "launch/scoring.h"

namespace thresher::launch {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLinesAtOnce = 256;

// One line of input: what to score, or why it cannot be.
struct Line {
  Json request;
  std::vector<std::int32_t> tokens;
  Status status = Status::Ok();
};

Result<std::vector<std::int32_t>> Parse(const LoadedPolicy& policy, const std::string& text,
                                        Json& request) {
  THRESHER_ASSIGN_OR_RETURN(request, ParseJson(text));
  if (!request.is_object()) return InvalidArgument("not a JSON object");
  const bool tokens = request.contains("tokens"), words = request.contains("text");
  if (tokens == words) {
    return InvalidArgument("allowed: one of the keys \"tokens\" and \"text\"");
  }
  if (tokens) return TokensFromJson(request["tokens"], "tokens");
  if (!request["text"].is_string()) {
    return InvalidArgument("text is " + request["text"].dump() + "; allowed: a string");
  }
  return EncodePrompt(policy, request["text"].get<std::string>());
}

Line Read(const LoadedPolicy& policy, const Scorer& scorer, const std::string& text) {
  Line line;
  auto tokens = Parse(policy, text, line.request);
  line.status = tokens.ok() ? scorer.Check(*tokens) : tokens.status();
  if (tokens.ok()) line.tokens = std::move(tokens).value();
  return line;
}

// The first token has no log-probability: nothing predicts it.
Json Answer(const Line& line, const std::vector<float>* logprobs) {
  Json answer = Json::object();
  if (line.request.is_object() && line.request.contains("id")) answer["id"] = line.request["id"];
  if (logprobs == nullptr) {
    answer["error"] = line.status.message();
    return answer;
  }
  Json list = Json::array({nullptr});
  double sum = 0;
  for (float logprob : *logprobs) {
    list.push_back(logprob);
    sum += static_cast<double>(logprob);
  }
  if (!std::isfinite(sum)) {
    answer["error"] = "the model's log-probabilities are not finite";
    return answer;
  }
  if (!line.request.contains("tokens")) answer["tokens"] = line.tokens;
  answer["logprobs"] = std::move(list);
  answer["sum"] = sum;
  return answer;
}

// Scores what can be scored and answers every line in order; false if one could not be. Errors: the
// scorer's.
Result<bool> AnswerAll(Scorer& scorer, const std::vector<Line>& lines, float temperature) {
  std::vector<std::vector<std::int32_t>> sequences;
  for (const Line& line : lines) {
    if (line.status.ok()) sequences.push_back(line.tokens);
  }
  THRESHER_ASSIGN_OR_RETURN(const auto scores, scorer.Score(sequences, temperature));
  std::size_t next = 0;
  bool all = true;
  for (const Line& line : lines) {
    const bool scored = line.status.ok();
    const Json answer = Answer(line, scored ? &scores[next] : nullptr);
    std::cout << answer.dump() << "\n";
    next += scored;
    all &= !answer.contains("error");
  }
  std::cout.flush();
  return all;
}

Result<Scorer> MakeScorer(const LoadedPolicy& policy, const ComputeOptions& options,
                          WorkerPool* pool) {
  THRESHER_ASSIGN_OR_RETURN(const Device device, ChooseDevice(options.device, "--device"));
  if (device.kind == DeviceKind::kCpu) return Scorer(policy.weights, pool);
  THRESHER_ASSIGN_OR_RETURN(auto pass,
                            backend::MakeTrainingPass(device, policy.weights->config(), false));
  return Scorer(policy.weights, std::move(pass));
}

// Answers standard input; false if a line could not be answered.
Result<bool> AnswerInput(const LoadedPolicy& policy, Scorer& scorer, float temperature) {
  bool all = true;
  std::vector<Line> lines;
  const auto answer = [&]() -> Status {
    THRESHER_ASSIGN_OR_RETURN(const bool answered, AnswerAll(scorer, lines, temperature));
    all &= answered;
    lines.clear();
    return Status::Ok();
  };
  for (std::string text; std::getline(std::cin, text);) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    lines.push_back(Read(policy, scorer, text));
    // Answers do not wait for a line that has not come yet.
    if (lines.size() < kLinesAtOnce && std::cin.rdbuf()->in_avail() > 0) continue;
    THRESHER_RETURN_IF_ERROR(answer());
  }
  THRESHER_RETURN_IF_ERROR(answer());
  if (std::cin.bad()) return Unavailable("standard input cannot be read");
  return all;
}

}  // namespace

int ScoreCommand(const ScoreOptions& options) {
  auto pool = SetUpCompute(options.compute, options.model);
  if (!pool.ok()) return Report(pool.status(), kExitUsage);
  auto policy = LoadPolicy(options.model);
  if (!policy.ok()) return Report(policy.status(), kExitUsage);
  auto scorer = MakeScorer(*policy, options.compute, pool->get());
  if (!scorer.ok()) return Report(scorer.status(), kExitFailure);
  const auto all = AnswerInput(*policy, *scorer, static_cast<float>(options.temperature));
  if (!all.ok()) return Report(all.status(), kExitFailure);
  return *all ? kExitOk : kExitDoesNotHold;
}

}  // namespace thresher::launch
