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

namespace thresher::model {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kContext = 512;
constexpr std::int32_t kSpareVocab = 3;  // rows of the embedding beyond the tokenizer

// Digits, signs, white space, '<' and letters of special tokens, and characters of 2, 3 and 4
// bytes.
constexpr char kAlphabet[] =
    "0123456789+-*/=(),; \n\t<>abcdeosnukp\"\\\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";

ModelConfig TestConfig(const std::string& family, bool tied, std::int32_t vocab) {
  ModelConfig config;
  config.family = family;
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
  config.eos_id = Tokenizer::kEos;
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

// One sequence at a time, as the engine runs it: prefill, then rows of one token.
class Runner {
 public:
  explicit Runner(const LoadedModel& model)
      : config_(model.config),
        model_(PackedModel::Make(model.config, model.flat, model.tokenizer->vocab(), false)),
        cache_(model.config, (model.config.context + 15) / 16) {
    for (std::int32_t i = 0; i < cache_.pages(); ++i) pages_.push_back(i);
  }

  // Hidden states of `ids` from position `first` on.
  std::vector<float> Hidden(const Ids& ids, std::size_t first) {
    RowBatch rows;
    for (std::size_t i = first; i < ids.size(); ++i) {
      rows.token.push_back(ids[i]);
      rows.position.push_back(static_cast<std::int32_t>(i));
      rows.page_table.push_back(pages_.data());
    }
    std::vector<float> hidden(rows.token.size() * static_cast<std::size_t>(config_.width));
    Forward(*model_, rows, cache_, *workspace_, hidden);
    return hidden;
  }

  json LogitRows(const Ids& ids) {
    const std::vector<float> logits = Logits(*model_, Hidden(ids, 0));
    const std::size_t valid = logits.size() / ids.size();
    json rows = json::array();
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const auto row = logits.begin() + static_cast<std::ptrdiff_t>(t * valid);
      rows.push_back(std::vector<float>(row, row + static_cast<std::ptrdiff_t>(valid)));
    }
    return rows;
  }

  Ids Greedy(Ids ids, int new_tokens) {
    Ids continuation;
    std::size_t done = 0;
    const float temperature = 0;
    const double uniform = 0.5;
    while (static_cast<int>(continuation.size()) < new_tokens) {
      const std::vector<float> hidden = Hidden(ids, done);
      done = ids.size();
      std::int32_t token = 0;
      float logprob = 0;
      Sample(*model_, std::span(hidden).last(static_cast<std::size_t>(config_.width)),
             {&temperature, 1}, {&uniform, 1}, *workspace_, {&token, 1}, {&logprob, 1});
      continuation.push_back(token);
      ids.push_back(token);
      if (token == config_.eos_id) break;
    }
    return continuation;
  }

 private:
  ModelConfig config_;
  std::shared_ptr<const PackedModel> model_;
  KvCache cache_;
  Ids pages_;
  WorkspacePtr workspace_ = NewWorkspace();
};

int Dump(const std::string& folder) {
  const auto model = LoadModelFolder(folder);
  if (!model.ok()) return Fail(model.status());
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  const json request = json::parse(text);
  Runner runner(*model);
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
