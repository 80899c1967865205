// README.md's table of the largest model per GPU memory is what the estimates of `thresher check`
// give.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <optional>

#include "launch/estimate.h"
#include "launch/progress.h"
#include "tests/support/source_folder.h"

namespace thresher::launch {
namespace {

struct Shape {
  const char* name;
  const char* family;
  int layers, width, heads, kv_heads, head_dim, ffn, vocab;
  bool tied;
};
// Their config.json, by size.
constexpr Shape kShapes[] = {
    {"Qwen2.5-0.5B", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, true},
    {"Llama-3.2-1B", "llama", 16, 2048, 32, 8, 64, 8192, 128256, true},
    {"Qwen2.5-1.5B", "qwen2", 28, 1536, 12, 2, 128, 8960, 151936, true},
    {"Qwen2.5-3B", "qwen2", 36, 2048, 16, 2, 128, 11008, 151936, true},
    {"Llama-3.2-3B", "llama", 28, 3072, 24, 8, 128, 8192, 128256, true},
    {"Qwen2.5-7B", "qwen2", 28, 3584, 28, 4, 128, 18944, 152064, false},
    {"Llama-3.1-8B", "llama", 32, 4096, 32, 8, 128, 14336, 128256, false},
    {"Qwen2.5-14B", "qwen2", 48, 5120, 40, 8, 128, 13824, 152064, false},
    {"Qwen2.5-32B", "qwen2", 64, 5120, 40, 8, 128, 27648, 152064, false},
};
constexpr int kMemories[] = {24, 40, 80, 141};  // in GB, 10^9 bytes
constexpr int kRanks[] = {1, 2, 4, 8};

Config ConfigOf(const std::string& set, int ranks, bool offload) {
  return ParseConfig(
      "", "table",
      {"actors.device=cuda", "learner.device=cuda", "engine.kernel_set=" + set,
       "model.dtype=bfloat16", "model.context=4096", "actors.max_batch=32",
       "actors.prefill_chunk_tokens=2048", "learner.micro_batch_tokens=8192",
       "learner.recompute_activations=true", "learner.ranks=" + std::to_string(ranks),
       std::string("learner.offload_optimizer=") + (offload ? "true" : "false")});
}

model::ModelConfig ShapeOf(const Shape& shape) {
  model::ModelConfig config;
  config.family = shape.family;
  config.dtype = kernels::WeightType::kBf16;
  config.layers = shape.layers, config.width = shape.width, config.heads = shape.heads;
  config.kv_heads = shape.kv_heads, config.head_dim = shape.head_dim;
  config.ffn_width = shape.ffn, config.vocab = shape.vocab, config.tied_embeddings = shape.tied;
  config.qkv_bias = config.family == "qwen2";
  config.context = 4096;
  return config;
}

// The estimate of the process for the largest shape that fits; nothing: none does.
std::optional<std::pair<const Shape*, ProcessEstimate>> Largest(const std::string& process,
                                                                const std::string& set, int ranks,
                                                                int memory, bool offload = false) {
  std::optional<std::pair<const Shape*, ProcessEstimate>> best;
  const Config config = ConfigOf(set, ranks, offload);
  for (const Shape& shape : kShapes) {
    for (const ProcessEstimate& one : Estimate(config, ShapeOf(shape)).processes) {
      if (one.name != process || one.GpuBytes() > std::uint64_t(memory) * 1000000000) continue;
      best.emplace(&shape, one);
    }
  }
  return best;
}

using Fit = std::optional<std::pair<const Shape*, ProcessEstimate>>;

std::string NameOf(const Fit& fit) { return fit ? fit->first->name : "none"; }

std::string HostOf(const Fit& fit) {
  return fit ? ShortBytes(double(fit->second.FirstBytes())) : "none";
}

std::string Table() {
  std::string out =
      "| GPU | kernel set | actor | learner, 1 rank | 2 ranks | 4 ranks | 8 ranks | its machine's "
      "memory, rank 0 | offloaded | its machine's memory, rank 0 |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n";
  for (int memory : kMemories) {
    for (const char* set : {"cpu-fp32-v1", "cuda-bf16-sm90-v1"}) {
      out += "| " + std::to_string(memory) + " GB | `" + set + "` | " +
             NameOf(Largest("actor", set, 1, memory)) + " |";
      Fit largest;  // more ranks hold no smaller one
      for (int ranks : kRanks) {
        largest = Largest("learner rank", set, ranks, memory);
        out += " " + NameOf(largest) + " |";
      }
      // Of any number of ranks.
      const Fit offloaded = Largest("learner rank", set, kRanks[3], memory, true);
      EXPECT_EQ(NameOf(offloaded), NameOf(Largest("learner rank", set, 1, memory, true)));
      out += " " + HostOf(largest) + " | " + NameOf(offloaded) + " | " + HostOf(offloaded) + " |\n";
    }
  }
  return out;
}

TEST(GpuTableTest, TheReadmesTableIsWhatCheckComputes) {
  constexpr std::string_view kBegin = "<!-- gpus: begin -->\n", kEnd = "<!-- gpus: end -->";
  std::ifstream in(SourceFolder() / "README.md");
  const std::string page{std::istreambuf_iterator<char>(in), {}};
  const std::size_t begin = page.find(kBegin), end = page.find(kEnd);
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  EXPECT_EQ(page.substr(begin + kBegin.size(), end - begin - kBegin.size()), Table())
      << "put the second text between the marks of README.md";
}

}  // namespace
}  // namespace thresher::launch
