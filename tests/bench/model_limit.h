#pragma once

#include <string>
#include <vector>

#include "common/model/model_config.h"
#include "common/model/weights.h"
#include "kernels/cpu/gemm.h"
#include "tests/bench/bench_report.h"

namespace thresher::bench {

// The quickstart's shape.
inline model::ModelConfig QuickstartShape() {
  model::ModelConfig shape;
  shape.vocab = 25;
  shape.layers = 3;
  shape.width = 96;
  shape.heads = 6;
  shape.kv_heads = 2;
  shape.head_dim = 16;
  shape.ffn_width = 384;
  shape.context = 64;
  shape.tied_embeddings = true;
  return shape;
}

// Rows per second of the matrix products of one forward pass alone, at `rows` rows, on one core: the
// limit of everything that runs the model (nothing but its arithmetic, same kernels, same shapes).
inline double GemmRowsPerSecond(const model::ModelConfig& shape, std::int64_t rows) {
  struct Product {
    std::int64_t n, k;
    std::vector<float> packed;
  };
  const std::int64_t d = shape.width, f = shape.ffn_width;
  std::vector<Product> products;
  for (auto [n, k] : {std::pair<std::int64_t, std::int64_t>{shape.q_width() + 2 * shape.kv_width(), d},
                      {d, shape.q_width()},
                      {2 * f, d},
                      {d, f}}) {
    Product product{n, k, {}};
    std::vector<float> weight(static_cast<std::size_t>(n * k), 0.01f);
    product.packed.resize(kernels::PackedBytes(kernels::WeightType::kF32, n, k) / sizeof(float));
    kernels::PackRows(kernels::WeightType::kF32, n, k, 0, n, weight.data(), product.packed.data());
    products.push_back(std::move(product));
  }
  std::vector<float> x(static_cast<std::size_t>(rows * std::max(d, f)), 0.5f);
  std::vector<float> y(static_cast<std::size_t>(rows * std::max<std::int64_t>(2 * f, 3 * d)));
  int passes = 0;
  double seconds = 0;
  while (seconds < 0.1) {
    seconds += Seconds([&] {
      for (int layer = 0; layer < shape.layers; ++layer) {
        for (const Product& p : products) {
          kernels::Gemm(rows, p.n, p.k, x.data(), p.k, {p.packed.data()}, nullptr, y.data(), p.n);
        }
      }
    });
    ++passes;
  }
  return static_cast<double>(rows) * passes / seconds;
}

}  // namespace thresher::bench
