#include <numeric>

#include "kernels/cpu/attention.h"
#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using Doubles = std::vector<double>;

struct Problem {
  std::int64_t t, heads, kv_heads, head_dim;
  float scale;
  Floats q, k, v, dout, out, lse;

  Problem(std::int64_t length, std::int64_t h, std::int64_t g, std::int64_t dh)
      : t(length),
        heads(h),
        kv_heads(g),
        head_dim(dh),
        scale(1.0f / std::sqrt(static_cast<float>(dh))),
        q(Random(t * h * dh, 1)),
        k(Random(t * g * dh, 2)),
        v(Random(t * g * dh, 3)),
        dout(Random(t * h * dh, 4)),
        out(t * h * dh),
        lse(t * h) {
    const std::int64_t count = (t + kKvPageSize - 1) / kKvPageSize;
    const std::size_t page = KvPageFloats(g, dh);
    Floats keys(count * page), values(count * page);
    const KvPages pages{keys.data(), values.data(), page};
    std::vector<std::int32_t> table(count), positions(t);
    std::iota(table.begin(), table.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<const std::int32_t*> tables(t, table.data());
    WriteKv(t, g, dh, k.data(), g * dh, v.data(), g * dh, tables.data(), positions.data(), pages);
    Attention(t, h, g, dh, q.data(), h * dh, tables.data(), positions.data(), scale, pages,
              out.data(), h * dh, lse.data());
  }

  // dq, dk, dv one after the other; the outputs hold NaN before.
  Floats Backward() const {
    const std::int64_t wide = heads * head_dim, narrow = kv_heads * head_dim;
    Floats dq(t * wide, kNaN), dk(t * narrow, kNaN), dv(t * narrow, kNaN);
    AttentionBackward({t,           heads,  kv_heads,   head_dim, q.data(),   wide,
                       k.data(),    narrow, v.data(),   narrow,   out.data(), wide,
                       dout.data(), wide,   lse.data(), scale,    dq.data(),  wide,
                       dk.data(),   narrow, dv.data(),  narrow});
    Append(&dq, dk);
    Append(&dq, dv);
    return dq;
  }

  // The same in double, straight from the formulas.
  Doubles Reference() const {
    const std::int64_t dh = head_dim, group = heads / kv_heads, narrow = kv_heads * dh;
    Doubles dq(t * heads * dh), dk(t * narrow), dv(t * narrow);
    for (std::int64_t row = 0; row < t * heads; ++row) {
      const std::int64_t last = row / heads, kv = row % heads / group * dh;
      const float *qr = &q[row * dh], *gr = &dout[row * dh];
      Doubles p(last + 1), dp(last + 1);
      double sum = 0, delta = 0;
      for (std::int64_t j = 0; j <= last; ++j) {
        double s = 0;
        for (std::int64_t d = 0; d < dh; ++d) {
          s += double(qr[d]) * k[j * narrow + kv + d] * scale;
          dp[j] += double(gr[d]) * v[j * narrow + kv + d];
        }
        sum += p[j] = std::exp(s);
      }
      for (std::int64_t j = 0; j <= last; ++j) delta += (p[j] /= sum) * dp[j];
      for (std::int64_t j = 0; j <= last; ++j) {
        const double ds = p[j] * (dp[j] - delta) * scale;
        for (std::int64_t d = 0; d < dh; ++d) {
          dq[row * dh + d] += ds * k[j * narrow + kv + d];
          dk[j * narrow + kv + d] += ds * qr[d];
          dv[j * narrow + kv + d] += p[j] * gr[d];
        }
      }
    }
    dq.insert(dq.end(), dk.begin(), dk.end());
    dq.insert(dq.end(), dv.begin(), dv.end());
    return dq;
  }
};

TEST(AttentionBackward, MatchesDouble) {
  for (const Problem& p : {Problem(1, 2, 1, 8), Problem(70, 4, 2, 24), Problem(131, 2, 2, 16),
                           Problem(33, 6, 1, 64)}) {
    const Floats got = p.Backward();
    const Doubles exact = p.Reference();
    // Values are below 8; terms of a sum carry (Dh + 20) roundings each, of size p <= 1 in total
    // per query, and at most t * group such sums meet in one element, mostly cancelling.
    const double bound = kUnit * 8 * (p.head_dim + 20) * std::sqrt(double(p.t * p.heads)) / 4;
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], exact[i], bound) << i;
  }
}

TEST(AttentionBackward, HasTheSameBitsInAllVariants) {
  for (const Problem& p : {Problem(70, 4, 2, 24), Problem(20, 3, 3, 40), Problem(65, 2, 1, 8)}) {
    ExpectSameBitsInAllVariants([&] { return p.Backward(); });
  }
}

TEST(AttentionBackward, IsCausal) {
  // A gradient that enters at position 9 alone reaches no key or value after it.
  Problem p(30, 2, 1, 16);
  std::fill(p.dout.begin(), p.dout.end(), 0.0f);
  p.dout[9 * 32 + 3] = 1.0f;
  const Floats got = p.Backward();
  const Floats dk = Slice(got, 30 * 32, 30 * 16), dv = Slice(got, 30 * 48, 30 * 16);
  for (std::int64_t i = 10 * 16; i < 30 * 16; ++i) {
    ASSERT_EQ(dk[i], 0.0f);
    ASSERT_EQ(dv[i], 0.0f);
  }
  EXPECT_NE(dv[9 * 16 + 3], 0.0f);
}

}  // namespace
}  // namespace thresher::kernels
