// Gradients of cuda-bf16-sm90-v1's attention: within their bound of exact arithmetic, those of a
// sequence whatever stands beside it.
#include "kernels/cuda/attention_bf16_backward.h"

#include <functional>

#include "tests/gpu/attention_bf16_testing.h"

namespace thresher::kernels::cuda {
namespace {

using namespace testing;
using kernels::testing::kNaN;
using kernels::testing::SameBits;
using Doubles = std::vector<double>;

class CudaAttentionBf16Backward : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (gpu::OpenDevice(0)->major != 9) GTEST_SKIP() << "compute capability is not 9.0";
  }
};

// dq, dk, dv of all rows, with what lies between their rows.
struct Grads {
  Floats dq, dk, dv;
};

// Sequences with random q, k, v and dO, rows a little apart, and what the forward pass leaves for
// them: out and lse, of exact arithmetic, rounded.
class Problem {
 public:
  Problem(const Heads& heads, Ints sequence_begins, unsigned seed)
      : h(heads), begin(std::move(sequence_begins)), t(begin.back()) {
    ldq = h.heads * h.head_dim + 1;
    ldk = h.kv_heads * h.head_dim + 3;
    q = Random(t * ldq, seed, 2.0f), k = Random(t * ldk, seed + 1, 2.0f);
    v = Random(t * ldk, seed + 2), dout = Random(t * ldq, seed + 3);
    out.assign(static_cast<std::size_t>(t * ldq), 0.0f);
    lse.assign(static_cast<std::size_t>(t * h.heads), 0.0f);
    for (std::size_t s = 0; s + 1 < begin.size(); ++s) {
      for (std::int64_t i = begin[s]; i < begin[s + 1]; ++i) {
        for (std::int64_t head = 0; head < h.heads; ++head) Forward(begin[s], i, head);
      }
    }
  }

  // A row's head, in q or in k.
  std::size_t At(std::int64_t row, std::int64_t head, std::int64_t d) const {
    return static_cast<std::size_t>(row * ldq + head * h.head_dim + d);
  }
  std::size_t KvAt(std::int64_t row, std::int64_t head, std::int64_t d) const {
    return static_cast<std::size_t>(row * ldk + KvHead(head) * h.head_dim + d);
  }
  std::int64_t KvHead(std::int64_t head) const { return head / (h.heads / h.kv_heads); }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(h.head_dim)); }
  double C() const { return Scale() * 1.44269504f; }
  double Dot(const Floats& a, std::size_t i, const Floats& b, std::size_t j, bool sizes) const {
    double sum = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(h.head_dim); ++d) {
      const double product = static_cast<double>(AsBf16(a[i + d])) * AsBf16(b[j + d]);
      sum += sizes ? std::fabs(product) : product;
    }
    return sum;
  }

  // The sequences [first, last).
  Grads Run(std::size_t first, std::size_t last,
            const std::function<cudaError_t(const AttentionBackwardArgs&, const Sequences&, void*)>&
                run) const {
    const std::int64_t row = begin[first], rows = begin[last] - row;
    Ints begins;
    std::int64_t longest = 0;
    for (std::size_t s = first; s <= last; ++s) {
      begins.push_back(static_cast<std::int32_t>(begin[s] - row));
      if (s > first) longest = std::max<std::int64_t>(longest, begin[s] - begin[s - 1]);
    }
    const auto part = [&](const Floats& of, std::int64_t ld) {
      return Floats(of.begin() + row * ld, of.begin() + (row + rows) * ld);
    };
    const OnDevice<float> gq(part(q, ldq)), gk(part(k, ldk)), gv(part(v, ldk)),
        gout(part(out, ldq)), gdout(part(dout, ldq)), glse(part(lse, h.heads)),
        gdq(Floats(static_cast<std::size_t>(rows * ldq), kNaN)),
        gdk(Floats(static_cast<std::size_t>(rows * ldk), kNaN)),
        gdv(Floats(static_cast<std::size_t>(rows * ldk), kNaN));
    const OnDevice<std::int32_t> gbegin(begins);
    const OnDevice<std::uint8_t> scratch(std::vector<std::uint8_t>(
        AttentionBackwardBf16ScratchBytes(rows, h.heads, h.kv_heads, h.head_dim), 0xff));
    AttentionBackwardArgs a{};
    a.t = rows, a.heads = h.heads, a.kv_heads = h.kv_heads, a.head_dim = h.head_dim;
    a.q = gq.data(), a.k = gk.data(), a.v = gv.data(), a.out = gout.data(), a.dout = gdout.data();
    a.lse = glse.data(), a.scale = Scale();
    a.dq = gdq.data(), a.dk = gdk.data(), a.dv = gdv.data();
    a.ldq = a.ldo = a.lddo = a.lddq = ldq;
    a.ldk = a.ldv = a.lddk = a.lddv = ldk;
    EXPECT_EQ(
        run(a, {static_cast<std::int64_t>(last - first), gbegin.data(), longest}, scratch.data()),
        cudaSuccess);
    return {gdq.Read(), gdk.Read(), gdv.Read()};
  }
  Grads Fast(std::size_t first, std::size_t last) const {
    return Run(first, last, [](const auto& a, const auto& sequences, void* scratch) {
      return AttentionBackwardBf16(nullptr, a, sequences, scratch);
    });
  }
  Grads Plain(bool magnitudes) const {
    return Run(0, begin.size() - 1, [=](const auto& a, const auto& sequences, void* scratch) {
      return AttentionBackwardBf16Plain(nullptr, a, sequences, scratch, magnitudes);
    });
  }

  const Heads h;
  const Ints begin;
  const std::int64_t t;
  std::int64_t ldq, ldk;
  Floats q, k, v, dout, out, lse;

 private:
  void Forward(std::int64_t first, std::int64_t i, std::int64_t head) {
    double total = 0;
    Doubles sum(static_cast<std::size_t>(h.head_dim));
    for (std::int64_t j = first; j <= i; ++j) {
      const double p = std::exp2(C() * Dot(q, At(i, head, 0), k, KvAt(j, head, 0), false));
      total += p;
      for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += p * AsBf16(v[KvAt(j, head, 0) + d]);
    }
    for (std::size_t d = 0; d < sum.size(); ++d) {
      out[At(i, head, 0) + d] = static_cast<float>(sum[d] / total);
    }
    lse[static_cast<std::size_t>(i * h.heads + head)] = static_cast<float>(std::log(total));
  }
};

// The gradients in float64, and M of their bounds; A, and the largest of what the bound names.
struct Exact {
  Doubles dq, dk, dv, size_dq, size_dk, size_dv;
  double score = 0, largest = 0;

  explicit Exact(const Problem& p)
      : dq(p.q.size()), dk(p.k.size()), dv(p.k.size()), size_dq(dq), size_dk(dk), size_dv(dv) {
    for (std::size_t s = 0; s + 1 < p.begin.size(); ++s) {
      for (std::int64_t i = p.begin[s]; i < p.begin[s + 1]; ++i) {
        for (std::int64_t j = p.begin[s]; j <= i; ++j) {
          for (std::int64_t head = 0; head < p.h.heads; ++head) Add(p, i, j, head);
        }
      }
    }
  }

 private:
  void Add(const Problem& p, std::int64_t i, std::int64_t j, std::int64_t head) {
    const std::size_t qi = p.At(i, head, 0), kj = p.KvAt(j, head, 0);
    const float lse = p.lse[static_cast<std::size_t>(i * p.h.heads + head)] * 1.44269504f;
    double delta = 0, size = p.Dot(p.dout, qi, p.v, kj, true);
    for (std::int64_t d = 0; d < p.h.head_dim; ++d) {
      const double product =
          static_cast<double>(AsBf16(p.dout[p.At(i, head, d)])) * p.out[p.At(i, head, d)];
      delta += product, size += std::fabs(product);
    }
    score = std::max(score, p.C() * p.Dot(p.q, qi, p.k, kj, true));
    const double weight = std::exp2(p.C() * p.Dot(p.q, qi, p.k, kj, false) - lse);
    const double grad = weight * (p.Dot(p.dout, qi, p.v, kj, false) - delta) * p.Scale();
    const double size_grad = weight * size * p.Scale();
    for (std::size_t d = 0; d < static_cast<std::size_t>(p.h.head_dim); ++d) {
      const double k = AsBf16(p.k[kj + d]), q = AsBf16(p.q[qi + d]), o = AsBf16(p.dout[qi + d]);
      dq[qi + d] += grad * k, size_dq[qi + d] += size_grad * std::fabs(k);
      dk[kj + d] += grad * q, size_dk[kj + d] += size_grad * std::fabs(q);
      dv[kj + d] += weight * o, size_dv[kj + d] += weight * std::fabs(o);
      largest = std::max({largest, size * std::fabs(k), size * std::fabs(q), std::fabs(o)});
    }
  }
};

// The largest part of its bound that a value is off.
double WorstOf(const Problem& p, const Exact& exact, const Grads& found) {
  double worst = 0;
  const auto look = [&](const Floats& values, const Doubles& expected, const Doubles& sizes,
                        std::int64_t summed) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (sizes[i] == 0) {  // between rows
        EXPECT_TRUE(std::isnan(values[i])) << i;
        continue;
      }
      const double bound =
          AttentionBackwardBf16Bound(p.h.head_dim, summed, exact.score, sizes[i], exact.largest);
      const double off = std::fabs(values[i] - expected[i]);
      worst = off <= worst * bound ? worst : off / bound;
    }
  };
  const std::int64_t rows = (p.t + 63) / 64 * 64;
  look(found.dq, exact.dq, exact.size_dq, rows);
  look(found.dk, exact.dk, exact.size_dk, rows * p.h.heads / p.h.kv_heads);
  look(found.dv, exact.dv, exact.size_dv, rows * p.h.heads / p.h.kv_heads);
  return worst;
}

TEST_F(CudaAttentionBf16Backward, BothFormsAreWithinTheBoundOfExactArithmetic) {
  for (const Heads& h : {Heads{4, 2, 24}, Heads{3, 1, 64}, Heads{1, 1, 128}}) {
    SCOPED_TRACE(std::to_string(h.heads) + "x" + std::to_string(h.head_dim));
    // A sequence without rows, one of a row, some of several tiles and blocks.
    const Problem problem(h, {0, 70, 71, 71, 135, 290}, 3);
    const Exact exact(problem);
    const Grads fast = problem.Fast(0, 5), plain = problem.Plain(false);
    const double worst = WorstOf(problem, exact, fast);
    EXPECT_LE(worst, 1.0);
    EXPECT_GT(worst, 0.005) << "the bound says nothing";
    EXPECT_LE(WorstOf(problem, exact, plain), 1.0);
    const Grads sizes = problem.Plain(true);
    for (std::size_t i = 0; i < sizes.dq.size(); ++i) {
      if (exact.size_dq[i] == 0) continue;
      ASSERT_NEAR(sizes.dq[i] / exact.size_dq[i], 1.004, 0.004);
    }
    for (std::size_t i = 0; i < sizes.dk.size(); ++i) {
      if (exact.size_dk[i] == 0) continue;
      ASSERT_NEAR(sizes.dk[i] / exact.size_dk[i], 1.004, 0.004);
      ASSERT_NEAR(sizes.dv[i] / exact.size_dv[i], 1.004, 0.004);
    }
  }
}

TEST_F(CudaAttentionBf16Backward, ASequencesGradientDependsOnNothingBesideIt) {
  const Problem problem({4, 2, 16}, {0, 130, 131, 200, 264}, 5);
  const Grads together = problem.Fast(0, 4);
  Grads apart;
  for (std::size_t s = 0; s < 4; ++s) {
    const Grads one = problem.Fast(s, s + 1);
    kernels::testing::Append(&apart.dq, one.dq);
    kernels::testing::Append(&apart.dk, one.dk);
    kernels::testing::Append(&apart.dv, one.dv);
  }
  EXPECT_TRUE(SameBits(together.dq, apart.dq));
  EXPECT_TRUE(SameBits(together.dk, apart.dk));
  EXPECT_TRUE(SameBits(together.dv, apart.dv));
}

TEST_F(CudaAttentionBf16Backward, WhatIsNotServedIsRefused) {
  AttentionBackwardArgs a{};
  a.heads = 3, a.kv_heads = 1, a.head_dim = 136, a.scale = 1;
  EXPECT_EQ(AttentionBackwardBf16(nullptr, a, {}, nullptr), cudaErrorInvalidValue);
  a.head_dim = 128;
  EXPECT_EQ(AttentionBackwardBf16(nullptr, a, {}, nullptr), cudaSuccess);
  a.kv_heads = 2;
  EXPECT_EQ(AttentionBackwardBf16(nullptr, a, {}, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace thresher::kernels::cuda
