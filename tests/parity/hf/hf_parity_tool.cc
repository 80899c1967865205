// Our side of the comparison with Hugging Face Transformers (check.py is the other):
//   hf_parity_tool make FOLDER FAMILY tied|untied   writes a model folder with random weights
//   hf_parity_tool dump FOLDER                      answers a JSON request on standard input
// Request:  {"strings": [text], "ids": [[int]], "sequences": [[int]], "prompts": [[int]],
//            "new_tokens": int}
// Reply:    {"encoded": [[int]] of strings, "decoded": [text] of ids, "logits": [[[float]]] of
// sequences,
//            "greedy": [[int]] of prompts: what follows, the end token included}
#include <cstring>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "common/model/forward.h"
#include "common/model/tokenizer.h"
#include "common/model/weights.h"
#include "tests/parity/hf/runner.h"

namespace thresher::model {
namespace {

using nlohmann::json;

constexpr std::int32_t kContext = 512;
constexpr std::int32_t kSpareVocab = 3;  // rows of the embedding beyond the tokenizer

// Digits, signs, white space, '<' and letters of special tokens, and characters of 2, 3 and 4
// bytes.
constexpr char kAlphabet[] =
    "0123456789+-*/=(),; \n\t<>abcdeosnukp\"\\\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";

ModelConfig TestConfig(const std::string& family, bool tied, std::int32_t vocab) {
  ModelConfig config;
  config.family = family == "llama3" ? "llama" : family;
  if (family == "llama3") {
    config.rope_scaling = {RopeScaling::Kind::kLlama3, 8, 1, 4, kContext / 4};
  }
  config.vocab = vocab;
  config.layers = 3;
  config.width = 96;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.ffn_width = 256;
  config.context = kContext;
  config.tied_embeddings = tied;
  config.qkv_bias = family == "qwen2";
  config.rope_theta = 20000.0;
  config.norm_eps = 2e-6;
  config.bos_id = Tokenizer::kBos;
  config.eos_ids = {Tokenizer::kEos};
  config.pad_id = Tokenizer::kPad;
  return config;
}

int Fail(const Status& status) {
  std::cerr << status.ToString() << "\n";
  return 1;
}

// Random weights in every tensor, norms and biases too. 0.15 keeps signals their size at this
// width.
int Make(const std::string& folder, const std::string& family, bool tied) {
  const auto tokenizer = Tokenizer::FromAlphabet(kAlphabet);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  const ModelConfig config = TestConfig(family, tied, (*tokenizer)->vocab() + kSpareVocab);
  std::vector<float> flat = InitialWeights(config, 17, 0.15);
  for (const ParameterInfo& info : ParameterList(config)) {
    if (info.shape.size() == 2) continue;
    for (std::size_t i = 0; i < info.count; ++i) {
      flat[info.offset + i] += 0.2f * static_cast<float>((i * 37 + info.offset) % 19) / 19 - 0.1f;
    }
  }
  const Status saved = SaveModelFolder(folder, config, flat, **tokenizer);
  return saved.ok() ? 0 : Fail(saved);
}

int Dump(const std::string& folder) {
  const auto model = LoadModelFolder(folder);
  if (!model.ok()) return Fail(model.status());
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  const json request = json::parse(text);
  Runner runner(PackedModel::Make(model->config, model->flat, model->tokenizer->vocab(), false));
  json reply = {{"encoded", json::array()},
                {"decoded", json::array()},
                {"logits", json::array()},
                {"greedy", json::array()}};
  for (const auto& string : request["strings"]) {
    reply["encoded"].push_back(model->tokenizer->Encode(string.get<std::string>()));
  }
  for (const auto& ids : request["ids"]) {
    reply["decoded"].push_back(model->tokenizer->Decode(ids.get<Ids>()));
  }
  for (const auto& ids : request["sequences"]) {
    reply["logits"].push_back(runner.LogitRows(ids.get<Ids>()));
  }
  for (const auto& prompt : request["prompts"]) {
    reply["greedy"].push_back(runner.Greedy(prompt.get<Ids>(), request["new_tokens"]));
  }
  std::cout << reply << "\n";
  return 0;
}

}  // namespace
}  // namespace thresher::model

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "make") == 0) {
    return thresher::model::Make(argv[2], argv[3], std::strcmp(argv[4], "tied") == 0);
  }
  if (argc == 3 && std::strcmp(argv[1], "dump") == 0) return thresher::model::Dump(argv[2]);
  std::cerr << "usage: hf_parity_tool make FOLDER FAMILY tied|untied | dump FOLDER < REQUEST\n";
  return 2;
}
