#include <gtest/gtest.h>
#include <torch/torch.h>

#include <numeric>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/head.h"
#include "kernels/cpu/head_filter.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "kernels/cpu/value_head.h"

// Each kernel against the same formula in libtorch, float64, with gradients from its autograd.
namespace thresher::kernels {
namespace {

using torch::Tensor;

// Roundings of a float chain grow like the square root of its length in practice; 64 units of the
// largest value of the result cover the shapes here (chains of at most 600) with a factor of three.
constexpr double kTolerance = 64 * 0x1p-24;

Tensor Uniform(std::vector<std::int64_t> shape) { return torch::rand(shape) * 2 - 1; }
float* Data(const Tensor& x) { return x.data_ptr<float>(); }

// A float64 leaf of the same values, with gradients.
Tensor Leaf(const Tensor& x) { return x.to(torch::kFloat64).clone().requires_grad_(true); }

void ExpectClose(const Tensor& got, const Tensor& exact, const char* what) {
  const Tensor difference = (got.to(torch::kFloat64) - exact.detach()).abs();
  const double size = std::max(1.0, exact.detach().abs().max().item<double>());
  EXPECT_LE(difference.max().item<double>(), kTolerance * size) << what;
}

Tensor Pack(const Tensor& w) {
  Tensor packed = torch::empty(
      {static_cast<std::int64_t>(PackedBytes(WeightType::kF32, w.size(0), w.size(1)) / 4)});
  PackRows(WeightType::kF32, w.size(0), w.size(1), 0, w.size(0), Data(w), Data(packed));
  return packed;
}

Tensor PackTransposed(const Tensor& w) {
  Tensor packed = torch::empty(
      {static_cast<std::int64_t>(PackedBytes(WeightType::kF32, w.size(1), w.size(0)) / 4)});
  PackRowsTransposed(WeightType::kF32, w.size(0), w.size(1), 0, w.size(0), Data(w), Data(packed));
  return packed;
}

class KernelsParity : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(1);
    torch::set_num_threads(1);
  }
};

TEST_F(KernelsParity, Linear) {
  for (auto [t, n, k] : {std::tuple{1, 33, 96}, std::tuple{50, 96, 100}, std::tuple{7, 40, 600}}) {
    const Tensor x = Uniform({t, k}), w = Uniform({n, k}), b = Uniform({n}), dy = Uniform({t, n});
    const Tensor x64 = Leaf(x), w64 = Leaf(w), b64 = Leaf(b);
    const Tensor y64 = torch::linear(x64, w64, b64);
    y64.backward(dy.to(torch::kFloat64));
    const Tensor y = torch::empty({t, n}), dx = torch::empty({t, k});
    const Tensor dw = torch::zeros({n, k}), db = torch::zeros({n});
    Gemm(t, n, k, Data(x), k, {Data(Pack(w))}, Data(b), Data(y), n);
    Gemm(t, k, n, Data(dy), n, {Data(PackTransposed(w))}, nullptr, Data(dx), k);
    GemmAccumulateWeightGrad(t, n, k, Data(dy), n, Data(x), k, Data(dw));
    BiasGrad(t, n, Data(dy), n, Data(db));
    ExpectClose(y, y64, "y");
    ExpectClose(dx, x64.grad(), "dx");
    ExpectClose(dw, w64.grad(), "dw");
    ExpectClose(db, b64.grad(), "db");
  }
}

TEST_F(KernelsParity, RmsNorm) {
  const std::int64_t t = 20, d = 100;
  const Tensor x = Uniform({t, d}), w = Uniform({d}), dy = Uniform({t, d});
  const Tensor x64 = Leaf(x), w64 = Leaf(w);
  const Tensor y64 = x64 * torch::rsqrt(x64.pow(2).mean(-1, true) + double(1e-6f)) * w64;
  y64.backward(dy.to(torch::kFloat64));
  const Tensor y = torch::empty({t, d}), inv = torch::empty({t}), dx = torch::empty({t, d});
  const Tensor dw = torch::zeros({d});
  RmsNormForward(t, d, Data(x), Data(w), 1e-6f, Data(y), Data(inv));
  RmsNormBackward(t, d, Data(x), Data(w), Data(inv), Data(dy), Data(dx), Data(dw));
  ExpectClose(y, y64, "y");
  ExpectClose(dx, x64.grad(), "dx");
  ExpectClose(dw, w64.grad(), "dw");
}

TEST_F(KernelsParity, Rope) {
  const std::int64_t t = 30, heads = 3, dh = 24, half = dh / 2;
  const Tensor x = Uniform({t, heads, dh}), dy = Uniform({t, heads, dh}), x64 = Leaf(x);
  const Tensor positions = torch::randint(0, 100, {t}, torch::kInt32);
  const Tensor cos = torch::empty({100, half}), sin = torch::empty({100, half});
  RopeTable(100, dh, 10000.0, Data(cos), Data(sin));
  const auto rows = [&](const Tensor& table) {
    const Tensor both = torch::cat({table, table}, -1).to(torch::kFloat64);
    return both.index_select(0, positions.to(torch::kInt64)).unsqueeze(1);
  };
  const Tensor rotated =
      torch::cat({-x64.slice(-1, half), x64.slice(-1, 0, half)}, -1);  // rotate_half
  const Tensor y64 = x64 * rows(cos) + rotated * rows(sin);
  y64.backward(dy.to(torch::kFloat64));
  const Tensor y = x.clone(), dx = dy.clone();
  const std::int32_t* p = positions.data_ptr<std::int32_t>();
  RopeApply(t, heads, dh, p, Data(cos), Data(sin), Data(y), heads * dh, false);
  RopeApply(t, heads, dh, p, Data(cos), Data(sin), Data(dx), heads * dh, true);
  ExpectClose(y, y64, "y");
  ExpectClose(dx, x64.grad(), "dx");
}

TEST_F(KernelsParity, Swiglu) {
  const std::int64_t t = 9, f = 77;
  const Tensor gate = Uniform({t, f}) * 8, up = Uniform({t, f}), dy = Uniform({t, f});
  const Tensor gate64 = Leaf(gate), up64 = Leaf(up);
  const Tensor y64 = torch::silu(gate64) * up64;
  y64.backward(dy.to(torch::kFloat64));
  const Tensor y = torch::empty({t, f}), dgate = torch::empty({t, f}), dup = torch::empty({t, f});
  SwigluForward(t, f, Data(gate), f, Data(up), f, Data(y), f);
  SwigluBackward(t, f, Data(gate), f, Data(up), f, Data(dy), f, Data(dgate), f, Data(dup), f);
  ExpectClose(y, y64, "y");
  ExpectClose(dgate, gate64.grad(), "dgate");
  ExpectClose(dup, up64.grad(), "dup");
}

TEST_F(KernelsParity, Embedding) {
  const std::int64_t t = 40, d = 24, v = 7;
  const Tensor table = Uniform({v, d}), dy = Uniform({t, d}), table64 = Leaf(table);
  const Tensor ids = torch::randint(0, v, {t}, torch::kInt32);
  const Tensor y64 = torch::embedding(table64, ids.to(torch::kInt64));
  y64.backward(dy.to(torch::kFloat64));
  const Tensor y = torch::empty({t, d}), dtable = torch::zeros({v, d});
  EmbeddingForward(t, d, v, ids.data_ptr<std::int32_t>(), Data(table), Data(y));
  EmbeddingBackward(t, d, v, ids.data_ptr<std::int32_t>(), Data(dy), Data(dtable));
  ExpectClose(y, y64, "y");
  ExpectClose(dtable, table64.grad(), "dtable");
}

void CompareAttention(std::int64_t t, std::int64_t h, std::int64_t g, std::int64_t dh) {
  const Tensor q = Uniform({t, h, dh}), k = Uniform({t, g, dh}), v = Uniform({t, g, dh});
  const Tensor dout = Uniform({t, h, dh});
  const Tensor q64 = Leaf(q), k64 = Leaf(k), v64 = Leaf(v);
  const double scale = 1.0 / std::sqrt(double(dh));
  const auto by_head = [&](const Tensor& x) {
    return x.repeat_interleave(h / x.size(1), 1).transpose(0, 1);
  };
  const Tensor mask = torch::ones({t, t}, torch::kBool).triu(1);
  const Tensor scores = torch::matmul(by_head(q64), by_head(k64).transpose(1, 2)) * scale;
  const Tensor masked = scores.masked_fill(mask, -INFINITY);
  const Tensor out64 = torch::matmul(torch::softmax(masked, -1), by_head(v64)).transpose(0, 1);
  out64.backward(dout.to(torch::kFloat64));

  const std::int64_t pages = (t + kKvPageSize - 1) / kKvPageSize, page = KvPageFloats(g, dh);
  const Tensor kp = torch::empty({pages * page}), vp = torch::empty({pages * page});
  std::vector<std::int32_t> table(pages), positions(t);
  std::iota(table.rbegin(), table.rend(), 0);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<const std::int32_t*> tables(t, table.data());
  const KvPages kv{Data(kp), Data(vp), static_cast<std::size_t>(page)};
  WriteKv(t, g, dh, Data(k), g * dh, Data(v), g * dh, tables.data(), positions.data(), kv);
  const Tensor out = torch::empty({t, h, dh}), lse = torch::empty({t, h});
  const float fscale = static_cast<float>(scale);
  Attention(t, h, g, dh, Data(q), h * dh, tables.data(), positions.data(), fscale, kv, Data(out),
            h * dh, Data(lse));
  const Tensor dq = torch::empty_like(q), dk = torch::empty_like(k), dv = torch::empty_like(v);
  AttentionBackward({t,        h,      g,         dh,     Data(q),    h * dh, Data(k),   g * dh,
                     Data(v),  g * dh, Data(out), h * dh, Data(dout), h * dh, Data(lse), fscale,
                     Data(dq), h * dh, Data(dk),  g * dh, Data(dv),   g * dh});
  ExpectClose(out, out64, "out");
  ExpectClose(lse, torch::logsumexp(masked, -1).transpose(0, 1), "lse");
  ExpectClose(dq, q64.grad(), "dq");
  ExpectClose(dk, k64.grad(), "dk");
  ExpectClose(dv, v64.grad(), "dv");
}

TEST_F(KernelsParity, Attention) {
  CompareAttention(1, 2, 2, 8);
  CompareAttention(150, 4, 2, 24);
  CompareAttention(65, 6, 1, 64);
  CompareAttention(40, 2, 2, 128);
}

void CompareHead(std::int64_t t, std::int64_t d, std::int64_t v, std::int64_t valid) {
  const Tensor hidden = Uniform({t, d}), w = Uniform({v, d});
  const Tensor temperature = torch::rand({t}) + 0.5;
  const Tensor targets = torch::randint(0, valid, {t}, torch::kInt32);
  const Tensor a = Uniform({t}), b = Uniform({t});
  const Tensor hidden64 = Leaf(hidden), w64 = Leaf(w);
  const Tensor z = torch::linear(hidden64, w64).slice(1, 0, valid) /
                   temperature.to(torch::kFloat64).unsqueeze(1);
  const Tensor log_p = torch::log_softmax(z, -1);
  const Tensor logprob64 = log_p.gather(1, targets.to(torch::kInt64).unsqueeze(1)).squeeze(1);
  const Tensor entropy64 = -(log_p.exp() * log_p).sum(-1);
  (a.to(torch::kFloat64) * logprob64 + b.to(torch::kFloat64) * entropy64).sum().backward();

  const Tensor logprob = torch::empty({t}), lse = torch::empty({t}), entropy = torch::empty({t});
  const Tensor packed = Pack(w), packed_transposed = PackTransposed(w);
  const std::int32_t* ids = targets.data_ptr<std::int32_t>();
  HeadLogProb(t, d, v, valid, Data(hidden), d, {Data(packed)}, Data(temperature), ids,
              Data(logprob), Data(lse), Data(entropy));
  const Tensor dhidden = torch::empty({t, d}), dhead = torch::zeros({v, d});
  HeadBackwardArgs args{.t = t,
                        .d = d,
                        .v = v,
                        .valid_vocab = valid,
                        .hidden = Data(hidden),
                        .ldh = d,
                        .packed_head = {Data(packed)},
                        .packed_head_transposed = {Data(packed_transposed)},
                        .temperature = Data(temperature),
                        .targets = ids,
                        .lse = Data(lse),
                        .dlogprob = Data(a),
                        .entropy = Data(entropy),
                        .dentropy = Data(b),
                        .dhidden = Data(dhidden),
                        .lddh = d,
                        .dhead = Data(dhead)};
  HeadBackward(args);
  ExpectClose(logprob, logprob64, "logprob");
  ExpectClose(lse, torch::logsumexp(z, -1), "lse");
  ExpectClose(entropy, entropy64, "entropy");
  ExpectClose(dhidden, hidden64.grad(), "dhidden");
  ExpectClose(dhead, w64.grad(), "dhead");
}

// The ids that generate() of Hugging Face leaves of scores [V] at the temperature: true.
Tensor LeftOf(const Tensor& scores, const HeadFilter& f) {
  const std::int64_t v = scores.size(0);
  Tensor s = scores.detach().clone();
  if (f.top_k > 0) {
    const std::int64_t k = std::min<std::int64_t>(f.top_k, v);
    s.masked_fill_(s < std::get<0>(s.topk(k))[k - 1], -INFINITY);
  }
  if (f.top_p < 1) {
    const auto [sorted, order] = s.sort();  // ascending
    const Tensor drop = torch::softmax(sorted, -1).cumsum(-1) <= 1.0 - double(f.top_p);
    s.masked_fill_(torch::zeros({v}, torch::kBool).scatter(0, order, drop), -INFINITY);
  }
  const Tensor p = torch::softmax(s, -1);
  return (p >= double(f.min_p) * p.max()) & (p > 0);
}

void CompareSupport(const HeadFilter& wanted, std::int64_t t, std::int64_t d, std::int64_t v) {
  const Tensor hidden = Uniform({t, d}) * 2, w = Uniform({v, d});
  const Tensor temperature = torch::full({t}, 0.7);
  const Tensor targets = torch::randint(0, v, {t}, torch::kInt32);  // kept or not
  const Tensor a = Uniform({t});
  std::vector<std::int32_t> seen;
  for (std::int32_t id = 1; id < v; id += 3) seen.push_back(id);
  HeadFilter filter = wanted;
  filter.temperature = 0.7f;
  filter.seen = seen.data();
  filter.seen_count = std::ssize(seen);

  const Tensor hidden64 = Leaf(hidden), w64 = Leaf(w);
  const Tensor z = torch::linear(hidden64, w64);
  const double penalty = filter.repetition_penalty;
  Tensor was_seen = torch::zeros({v}, torch::kBool);
  for (std::int32_t id : seen) was_seen[id] = true;
  const Tensor scores =
      torch::where(was_seen, torch::where(z < 0, z * penalty, z / penalty), z) / double(0.7f);
  Tensor left = torch::zeros({t, v}, torch::kBool);
  for (std::int64_t i = 0; i < t; ++i) left[i] = LeftOf(scores[i], filter);
  const Tensor ids = targets.to(torch::kInt64).unsqueeze(1);
  const Tensor inside = left.scatter(1, ids, true);
  const Tensor log_q = torch::log_softmax(scores.masked_fill(~inside, -INFINITY), -1);
  const Tensor sampled64 = log_q.gather(1, ids).squeeze(1);
  (a.to(torch::kFloat64) * sampled64).sum().backward();

  const Tensor packed = Pack(w), packed_transposed = PackTransposed(w);
  const Tensor logprob = torch::empty({t}), lse = torch::empty({t}), logits = torch::empty({t, v});
  const std::int32_t* target = targets.data_ptr<std::int32_t>();
  HeadLogProb(t, d, v, v, Data(hidden), d, {Data(packed)}, Data(temperature), target, Data(logprob),
              Data(lse), nullptr);
  const HeadRows rows{t, d, v, v, Data(hidden), d, {Data(packed)}, Data(temperature)};
  std::vector<HeadBlock> blocks(static_cast<std::size_t>(t * HeadBlockCount(v)));
  std::vector<float*> kept;
  for (std::int64_t i = 0; i < t; ++i) kept.push_back(Data(logits) + i * v);
  HeadScan(rows, nullptr, 0, HeadBlockCount(v), blocks.data(), kept.data());
  std::vector<HeadSupport> support;
  const std::vector<HeadFilter> filters(static_cast<std::size_t>(t), filter);
  const Tensor sampled = torch::empty({t});
  for (std::int64_t i = 0; i < t; ++i) {
    support.push_back(HeadFindSupport(v, kept[static_cast<std::size_t>(i)],
                                      &blocks[static_cast<std::size_t>(i * HeadBlockCount(v))],
                                      filter, target[i], Data(logprob)[i]));
    Data(sampled)[i] = Data(logprob)[i] - support.back().kept_mass_logprob;
    ASSERT_EQ(support.back().holds_target, left[i][target[i]].item<bool>()) << i;
  }
  const Tensor dhidden = torch::empty({t, d}), dhead = torch::zeros({v, d});
  HeadBackwardArgs args{.t = t,
                        .d = d,
                        .v = v,
                        .valid_vocab = v,
                        .hidden = Data(hidden),
                        .ldh = d,
                        .packed_head = {Data(packed)},
                        .packed_head_transposed = {Data(packed_transposed)},
                        .temperature = Data(temperature),
                        .targets = target,
                        .lse = Data(lse),
                        .dlogprob = Data(a),
                        .dhidden = Data(dhidden),
                        .lddh = d,
                        .dhead = Data(dhead),
                        .filter = filters.data(),
                        .support = support.data()};
  HeadBackward(args);
  ExpectClose(sampled, sampled64, "sampled");
  ExpectClose(dhidden, hidden64.grad(), "dhidden");
  ExpectClose(dhead, w64.grad(), "dhead");
}

TEST_F(KernelsParity, HeadOverASupport) {
  const HeadFilter filters[] = {
      {.top_k = 20},
      {.top_p = 0.9f},
      {.min_p = 0.05f},
      {.repetition_penalty = 1.3f},
      {.top_k = 20, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.2f}};
  for (const HeadFilter& filter : filters) {
    CompareSupport(filter, 60, 24, 45);
    CompareSupport(filter, 9, 24, 700);
  }
}

TEST_F(KernelsParity, ValueHead) {
  const std::int64_t t = 60, d = 77;
  const Tensor hidden = Uniform({t, d}), w = Uniform({d}), bias = Uniform({1});
  const Tensor dvalue = Uniform({t});
  const Tensor hidden64 = Leaf(hidden), w64 = Leaf(w), bias64 = Leaf(bias);
  const Tensor value64 = torch::mv(hidden64, w64) + bias64;
  value64.backward(dvalue.to(torch::kFloat64));
  const Tensor value = torch::empty({t}), dhidden = torch::zeros({t, d});
  const Tensor dw = torch::zeros({d}), dbias = torch::zeros({1});
  ValueHeadForward(t, d, Data(hidden), d, Data(w), Data(bias), Data(value));
  ValueHeadBackward({.t = t,
                     .d = d,
                     .hidden = Data(hidden),
                     .ldh = d,
                     .weight = Data(w),
                     .dvalue = Data(dvalue),
                     .dhidden = Data(dhidden),
                     .lddh = d,
                     .dweight = Data(dw),
                     .dbias = Data(dbias)});
  ExpectClose(value, value64, "value");
  ExpectClose(dhidden, hidden64.grad(), "dhidden");
  ExpectClose(dw, w64.grad(), "dweight");
  ExpectClose(dbias, bias64.grad(), "dbias");
}

TEST_F(KernelsParity, Head) {
  CompareHead(60, 96, 48, 45);
  CompareHead(5, 24, 700, 690);
  CompareHead(1, 16, 1, 1);
}

}  // namespace
}  // namespace thresher::kernels
