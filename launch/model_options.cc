#include "launch/model_options.h"

#include "common/config/device.h"

namespace thresher::launch {
namespace {

constexpr int kMostSamples = 1 << 20;  // TrajectoryId's samples
constexpr int kMostTokens = 1 << 24;   // and positions

void AddModel(CLI::App& sub, std::string& model) {
  sub.add_option("model", model, "Model folder, checkpoint, or run directory (newest checkpoint)")
      ->required()
      ->type_name("MODEL");
}

void AddCompute(CLI::App& sub, ComputeOptions& compute) {
  sub.add_option("--threads", compute.threads, "0: one for each processor")
      ->check(CLI::Range(0, 4096));
  sub.add_option("--cpus", compute.cpus, "Pins the threads to these processors: 0,1")
      ->delimiter(',')
      ->allow_extra_args(false);
  sub.add_option("--kernels", compute.kernels, "Variant of the kernels; none changes a bit");
  sub.add_option(
      "--kernel-set", compute.kernel_set,
      "Arithmetic: auto (of the model's run, else cpu-fp32-v1), or with bfloat16 weights "
      "cpu-bf16dot-v1, cpu-bf16amx-v1, and on GPUs cuda-bf16-sm90-v1");
  AddDevice(sub, compute.device);
}

void AddSampling(CLI::App& sub, GenerateOptions& options) {
  sub.add_option("--temperature", options.temperature, "0: greedy")->check(CLI::Range(0.0, 100.0));
  sub.add_option("--top-k", options.top_k, "0: off")->check(CLI::NonNegativeNumber);
  sub.add_option("--top-p", options.top_p, "Above 0, to 1")->check(CLI::Range(1e-9, 1.0));
  sub.add_option("--min-p", options.min_p, "0 to 1")->check(CLI::Range(0.0, 1.0));
  sub.add_option("--repetition-penalty", options.repetition_penalty, "1: none")
      ->check(CLI::Range(1e-3, 1e3));
  sub.add_option("--max-new-tokens", options.max_new_tokens,
                 "Default: generation_config.json's, else 256 or what the context leaves")
      ->check(CLI::Range(1, kMostTokens));
  sub.add_option("--stop", options.stop, "A text that ends a sample; may be repeated")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  sub.add_flag("--ignore-eos", options.ignore_eos, "End-of-sequence tokens end nothing");
}

}  // namespace

void AddDevice(CLI::App& sub, std::string& device) {
  sub.add_option("--device", device,
                 "cpu, cuda (the first GPU) or cuda:N; auto: a GPU if the kernel set needs one, "
                 "else the CPU")
      ->type_name("DEVICE")
      ->check([](const std::string& text) -> std::string {
        const auto choice = ParseDevices(text, "--device");
        if (text == "auto" || (choice.ok() && choice->indices.size() <= 1)) return "";
        return "'" + text + "'; allowed: auto, cpu, cuda, cuda:N";
      });
}

CLI::App* AddGenerate(CLI::App& app, GenerateOptions& options) {
  CLI::App* sub = app.add_subcommand("generate", "Samples from a model");
  AddModel(*sub, options.model);
  sub->add_option("--prompt", options.prompts, "A text; may be repeated")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  sub->add_option("--prompts", options.prompt_file,
                  "JSONL, one of the keys tokens, prompt and messages a line; -: standard input")
      ->type_name("FILE");
  auto* chat = sub->add_flag("--chat", options.chat, "Texts are a user's messages");
  sub->add_option("--system", options.system, "System message before them")->needs(chat);
  sub->add_option("--chat-template", options.chat_template, "By name; default: the model's own");
  sub->add_flag("--no-thinking", options.no_thinking, "Qwen3: answers without a thought");
  sub->add_option("--date", options.date, "What Llama 3 is told the day is: \"26 Jul 2024\"");
  sub->add_option("-n,--samples", options.samples, "Samples of each prompt")
      ->check(CLI::Range(1, kMostSamples));
  sub->add_option("--seed", options.seed, "The same seed gives the same samples");
  AddSampling(*sub, options);
  sub->add_option("--top-logprobs", options.top_logprobs, "Likeliest ids reported with each token")
      ->check(CLI::Range(0, 1000));
  sub->add_option("--max-batch", options.max_batch, "Sequences decoded together")
      ->check(CLI::Range(1, 4096));
  sub->add_option("--kv-pages", options.kv_pages, "Pages of 16 positions; 0: enough for all")
      ->check(CLI::NonNegativeNumber);
  sub->add_flag("--json", options.json, "One JSON object a sample");
  AddCompute(*sub, options.compute);
  return sub;
}

CLI::App* AddScore(CLI::App& app, ScoreOptions& options) {
  CLI::App* sub = app.add_subcommand(
      "score", "Log-probabilities of the JSONL on standard input: {\"tokens\"} or {\"text\"}");
  AddModel(*sub, options.model);
  sub->add_option("--temperature", options.temperature, "Of the distribution scored")
      ->check(CLI::Range(1e-6, 100.0));
  AddCompute(*sub, options.compute);
  return sub;
}

CLI::App* AddInit(CLI::App& app, InitOptions& options) {
  CLI::App* sub = app.add_subcommand("init", "Makes a model folder with random weights");
  sub->add_option("shape", options.shape,
                  "Folder with config.json; a tokenizer that lies there is copied")
      ->required()
      ->type_name("FOLDER");
  sub->add_option("out", options.out, "Model folder to make")->required()->type_name("OUT");
  sub->add_option("--seed", options.seed, "The weights are a function of it and the shape");
  sub->add_option("--std", options.standard_deviation, "Of the weights' normal distribution")
      ->check(CLI::Range(1e-6, 1.0));
  sub->add_option("--dtype", options.dtype, "float32, bfloat16 or float16; default: config.json's");
  return sub;
}

CLI::App* AddBenchEngine(CLI::App& app, BenchEngineOptions& options) {
  CLI::App* bench = app.add_subcommand("bench", "Measures this machine");
  bench->require_subcommand(1);
  CLI::App* sub = bench->add_subcommand("engine", "Prefill and decode rates of a model; JSON");
  AddModel(*sub, options.model);
  sub->add_option("--batch", options.batches, "Sequences at once: 1,8,32")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 4096));
  sub->add_option("--prompt-tokens", options.prompt_tokens, "Of each sequence")
      ->check(CLI::Range(1, kMostTokens));
  sub->add_option("--new-tokens", options.new_tokens, "Of each sequence")
      ->check(CLI::Range(2, kMostTokens));
  sub->add_option("--rounds", options.rounds, "Measured, after one that is not")
      ->check(CLI::Range(1, 1000));
  sub->add_option("--seed", options.seed, "Of prompts and samples");
  sub->add_flag("--widen-weights", options.widen_weights, "16-bit weights are kept in fp32");
  AddCompute(*sub, options.compute);
  return sub;
}

}  // namespace thresher::launch
