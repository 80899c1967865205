// Our side of the comparison of models made by Hugging Face Transformers (check_models.py is the
// other):
//   hf_model_tool answer FOLDER                        answers a JSON request on standard input
//   hf_model_tool resave FOLDER OUT DTYPE SHARD_BYTES  writes its weights to OUT, which exists
// Request:  {"sequences": [[int]], "prompts": [[int]], "new_tokens": int,
//            "gradient": null | {"ids": [int], "weights": [float], one fewer}}
// Reply:    {"dtype": text, "logits": [[[float]]] of sequences, "greedy": [[int]] of prompts,
//            "gradient": {tensor: [float]} of sum(weights * logprob(next id))}
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>

#include "common/model/model_folder.h"
#include "common/model/weights.h"
#include "tests/parity/hf/runner.h"

namespace thresher::model {
namespace {

using nlohmann::json;

int Fail(const Status& status) {
  std::cerr << status.ToString() << "\n";
  return 1;
}

int Answer(const std::string& folder) {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  const json request = json::parse(text);
  const json& wanted = request["gradient"];
  const auto model = LoadPackedModel(folder, {.with_backward = !wanted.is_null()});
  if (!model.ok()) return Fail(model.status());
  Runner runner(*model);
  json reply = {{"dtype", kernels::WeightTypeName((*model)->weight_type())},
                {"logits", json::array()},
                {"greedy", json::array()},
                {"gradient", json::object()}};
  for (const auto& ids : request["sequences"]) {
    reply["logits"].push_back(runner.LogitRows(ids.get<Ids>()));
  }
  for (const auto& prompt : request["prompts"]) {
    reply["greedy"].push_back(runner.Greedy(prompt.get<Ids>(), request["new_tokens"]));
  }
  if (!wanted.is_null()) {
    const auto gradient =
        runner.Gradient(wanted["ids"].get<Ids>(), wanted["weights"].get<std::vector<float>>());
    for (const ParameterInfo& info : ParameterList((*model)->config())) {
      const auto first = gradient.begin() + static_cast<std::ptrdiff_t>(info.offset);
      reply["gradient"][info.name] =
          std::vector<float>(first, first + static_cast<std::ptrdiff_t>(info.count));
    }
  }
  std::cout << reply << "\n";
  return 0;
}

int Resave(const std::string& from, const std::string& to, const std::string& dtype,
           std::uint64_t shard_bytes) {
  auto config = LoadModelConfig(from);
  if (!config.ok()) return Fail(config.status());
  const auto flat = LoadFlatWeights(from, *config);
  if (!flat.ok()) return Fail(flat.status());
  config->dtype = ParseWeightType(dtype).value();
  const Status saved = SaveWeightsFolder(to, *config, *flat, shard_bytes);
  return saved.ok() ? 0 : Fail(saved);
}

}  // namespace
}  // namespace thresher::model

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "answer") == 0) return thresher::model::Answer(argv[2]);
  if (argc == 6 && std::strcmp(argv[1], "resave") == 0) {
    return thresher::model::Resave(argv[2], argv[3], argv[4], std::strtoull(argv[5], nullptr, 10));
  }
  std::cerr << "usage: hf_model_tool answer FOLDER < REQUEST | resave FOLDER OUT DTYPE BYTES\n";
  return 2;
}
