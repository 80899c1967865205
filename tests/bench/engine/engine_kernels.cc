#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "tests/bench/engine/engine_tool.h"
#include "tests/bench/kernels_limits.h"

namespace thresher::bench {
namespace {

using namespace kernels;
using nlohmann::json;
using Floats = std::vector<float>;

struct Shape {
  std::int64_t width, layers, heads, kv_heads, head_dim, ffn, vocab, batch, positions;
  WeightType type;

  explicit Shape(const json& request)
      : width(request.at("width")),
        layers(request.at("layers")),
        heads(request.at("heads")),
        kv_heads(request.at("kv_heads")),
        head_dim(request.at("head_dim")),
        ffn(request.at("ffn_width")),
        vocab(request.at("vocab")),
        batch(request.at("batch")),
        positions(request.at("positions")) {
    const std::string name = request.at("weight_type");
    type = name == "bf16" ? WeightType::kBf16 : name == "f16" ? WeightType::kF16 : WeightType::kF32;
  }
  std::int64_t q() const { return heads * head_dim; }
  std::int64_t kv() const { return kv_heads * head_dim; }
  std::int64_t qkv() const { return q() + 2 * kv(); }
};

// Bytes of any type that the kernels may read: about 0.01 as bf16 and about 1 as fp16.
std::vector<std::uint16_t> WeightImage(std::int64_t elements) {
  return std::vector<std::uint16_t>(static_cast<std::size_t>(2 * elements), 0x3c00);
}

// One matrix for each layer, so that the caches see what they see in a model.
std::vector<PackedWeights> LayerWeights(const Shape& shape, std::int64_t n, std::int64_t k) {
  std::vector<PackedWeights> weights;
  const auto image = WeightImage(n * k);
  for (std::int64_t i = 0; i < shape.layers; ++i)
    weights.emplace_back(shape.type, n, k, image.data());
  return weights;
}

// Seconds of `work`, the median of a few rounds of enough calls each.
double MedianSeconds(const std::function<void()>& work) {
  constexpr int kRounds = 9;
  constexpr double kRoundSeconds = 5e-3;
  work();
  const double once = BestSeconds(1, work);
  const int calls = std::max(1, static_cast<int>(kRoundSeconds / std::max(once, 1e-8)));
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    seconds.push_back(BestSeconds(1,
                                  [&] {
                                    for (int i = 0; i < calls; ++i) work();
                                  }) /
                      calls);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return seconds[kRounds / 2];
}

double ProductSeconds(const Shape& shape, std::int64_t n, std::int64_t k) {
  const auto weights = LayerWeights(shape, n, k);
  const Floats x = SmallValues(shape.batch * k, 1);
  Floats y(static_cast<std::size_t>(shape.batch * n));
  return MedianSeconds([&] {
    for (const PackedWeights& w : weights) {
      Gemm(shape.batch, n, k, x.data(), k, w.matrix(), nullptr, y.data(), n);
    }
  });
}

// The step's rows in their sequences' pages: one row at `positions` for each of `batch` sequences.
// Moves, but is not copied: pages and tables point into it.
struct DecodeRows {
  DecodeRows(DecodeRows&&) = default;
  std::vector<std::int32_t> table, positions;
  std::vector<const std::int32_t*> tables;
  Floats keys, values;
  KvPages pages;

  explicit DecodeRows(const Shape& shape) {
    const std::int64_t each = shape.positions / kKvPageSize + 1;
    const std::size_t page = KvPageFloats(shape.kv_heads, shape.head_dim);
    table.resize(static_cast<std::size_t>(shape.batch * each));
    std::iota(table.begin(), table.end(), 0);
    for (std::int64_t i = 0; i < shape.batch; ++i) tables.push_back(table.data() + i * each);
    positions.assign(static_cast<std::size_t>(shape.batch), static_cast<int>(shape.positions));
    keys = values = SmallValues(static_cast<std::int64_t>(page * table.size()), 2);
    pages = {keys.data(), values.data(), page};
  }
};

double AttentionSeconds(const Shape& shape) {
  std::vector<DecodeRows> layers;
  layers.reserve(static_cast<std::size_t>(shape.layers));
  for (std::int64_t i = 0; i < shape.layers; ++i) layers.emplace_back(shape);
  const Floats q = SmallValues(shape.batch * shape.q(), 3);
  Floats out(q.size());
  return MedianSeconds([&] {
    for (const DecodeRows& rows : layers) {
      Attention(shape.batch, shape.heads, shape.kv_heads, shape.head_dim, q.data(), shape.q(),
                rows.tables.data(), rows.positions.data(), 0.125f, rows.pages, out.data(),
                shape.q(), nullptr);
    }
  });
}

double PlacementSeconds(const Shape& shape) {
  const DecodeRows rows(shape);
  Floats cos(static_cast<std::size_t>((shape.positions + 1) * shape.head_dim / 2)), sin(cos.size());
  RopeTable(shape.positions + 1, shape.head_dim, 1e4, cos.data(), sin.data());
  Floats qkv = SmallValues(shape.batch * shape.qkv(), 4);
  return MedianSeconds([&] {
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      float* k = qkv.data() + shape.q();
      RopeApply(shape.batch, shape.heads + shape.kv_heads, shape.head_dim, rows.positions.data(),
                cos.data(), sin.data(), qkv.data(), shape.qkv(), false);
      WriteKv(shape.batch, shape.kv_heads, shape.head_dim, k, shape.qkv(), k + shape.kv(),
              shape.qkv(), rows.tables.data(), rows.positions.data(), rows.pages);
    }
  });
}

double NormSeconds(const Shape& shape) {
  const Floats x = SmallValues(shape.batch * shape.width, 5), weight = SmallValues(shape.width, 6);
  Floats y(x.size());
  return MedianSeconds([&] {
    for (std::int64_t i = 0; i < 2 * shape.layers + 1; ++i) {
      RmsNormForward(shape.batch, shape.width, x.data(), weight.data(), 1e-6f, y.data(), nullptr);
    }
  });
}

double SwigluSeconds(const Shape& shape) {
  const Floats gate_up = SmallValues(shape.batch * 2 * shape.ffn, 7);
  Floats y(static_cast<std::size_t>(shape.batch * shape.ffn));
  return MedianSeconds([&] {
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      SwigluForward(shape.batch, shape.ffn, gate_up.data(), 2 * shape.ffn,
                    gate_up.data() + shape.ffn, 2 * shape.ffn, y.data(), shape.ffn);
    }
  });
}

double EmbeddingSeconds(const Shape& shape) {
  const Floats table = SmallValues(shape.vocab * shape.width, 8);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < shape.batch; ++i) {
    ids.push_back(static_cast<std::int32_t>(i * 7919 % shape.vocab));
  }
  Floats y(static_cast<std::size_t>(shape.batch * shape.width));
  return MedianSeconds([&] {
    EmbeddingForward(shape.batch, shape.width, shape.vocab, ids.data(), table.data(), y.data());
  });
}

double HeadSeconds(const Shape& shape) {
  const PackedWeights head(shape.type, shape.vocab, shape.width,
                           WeightImage(shape.vocab * shape.width).data());
  const Floats hidden = SmallValues(shape.batch * shape.width, 9);
  const Floats temperature(static_cast<std::size_t>(shape.batch), 1.0f);
  const std::vector<double> uniform(temperature.size(), 0.5);
  std::vector<std::int32_t> token(temperature.size());
  Floats logprob(temperature.size());
  return MedianSeconds([&] {
    HeadSample(shape.batch, shape.width, shape.vocab, shape.vocab, hidden.data(), shape.width,
               head.matrix(), temperature.data(), uniform.data(), token.data(), logprob.data());
  });
}

}  // namespace

json MeasureKernels(const json& request) {
  const Shape shape(request);
  json seconds = {{"embedding", EmbeddingSeconds(shape)},
                  {"norms", NormSeconds(shape)},
                  {"qkv", ProductSeconds(shape, shape.qkv(), shape.width)},
                  {"rope and kv", PlacementSeconds(shape)},
                  {"attention", AttentionSeconds(shape)},
                  {"o", ProductSeconds(shape, shape.width, shape.q())},
                  {"gate and up", ProductSeconds(shape, 2 * shape.ffn, shape.width)},
                  {"swiglu", SwigluSeconds(shape)},
                  {"down", ProductSeconds(shape, shape.width, shape.ffn)},
                  {"head", HeadSeconds(shape)}};
  double sum = 0;
  for (const auto& [name, value] : seconds.items()) sum += value.get<double>();
  return {{"seconds", seconds}, {"sum", sum}};
}

}  // namespace thresher::bench
