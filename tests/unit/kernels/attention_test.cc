#include "kernels/cpu/attention.h"

#include <algorithm>
#include <numeric>

#include "tests/unit/kernels/kernel_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};

constexpr Heads kHeads[] = {{4, 4, 16}, {4, 2, 24}, {6, 1, 8}, {7, 7, 40}, {8, 2, 64}, {2, 1, 128}};

// One sequence of `length` positions with its queries, and its KV in pages that are scattered over
// a pool full of NaN in an order set by `layout`.
struct Sequence {
  Heads h;
  std::int64_t length;
  Floats q, k, v, pool;
  std::vector<std::int32_t> table;
  KvPages pages;

  Sequence(const Heads& heads, std::int64_t n, unsigned seed, unsigned layout)
      : h(heads),
        length(n),
        q(Random(n * QWidth(), seed)),
        k(Random(n * KvWidth(), seed + 1)),
        v(Random(n * KvWidth(), seed + 2)) {
    const std::int64_t count = (n + kKvPageSize - 1) / kKvPageSize;
    const std::size_t page = KvPageFloats(h.kv_heads, h.head_dim);
    pool.assign((count + 3) * 2 * page, kNaN);
    pages = {pool.data(), pool.data() + page, 2 * page};
    table.resize(count + 3);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(layout));
    std::vector<const std::int32_t*> tables(n, table.data());
    std::vector<std::int32_t> positions(n);
    std::iota(positions.begin(), positions.end(), 0);
    WriteKv(n, h.kv_heads, h.head_dim, k.data(), KvWidth(), v.data(), KvWidth(), tables.data(),
            positions.data(), pages);
  }
  std::int64_t QWidth() const { return h.heads * h.head_dim; }
  std::int64_t KvWidth() const { return h.kv_heads * h.head_dim; }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(h.head_dim)); }

  // Output rows followed by lse, for the given positions in one call.
  Floats Run(const std::vector<std::int32_t>& positions) const {
    const std::int64_t t = static_cast<std::int64_t>(positions.size());
    Floats rows, out(t * QWidth(), kNaN), lse(t * h.heads, kNaN);
    for (std::int32_t p : positions) Append(&rows, Slice(q, p * QWidth(), QWidth()));
    std::vector<const std::int32_t*> tables(t, table.data());
    Attention(t, h.heads, h.kv_heads, h.head_dim, rows.data(), QWidth(), tables.data(),
              positions.data(), Scale(), pages, out.data(), QWidth(), lse.data());
    Append(&out, lse);
    return out;
  }
  Floats Prefill() const {
    std::vector<std::int32_t> positions(length);
    std::iota(positions.begin(), positions.end(), 0);
    return Run(positions);
  }
};

TEST(Attention, MatchesDoubleWithinADerivedBound) {
  for (const Heads& h : kHeads) {
    const Sequence s(h, 150, 1, 1);
    const Floats out = s.Prefill();
    const std::int64_t group = h.heads / h.kv_heads;
    for (std::int64_t row = 0; row < s.length * h.heads; ++row) {
      const std::int64_t t = row / h.heads, head = row % h.heads, g = head / group;
      const float* q = &s.q[row * h.head_dim];
      std::vector<double> score(t + 1), exact(h.head_dim);
      double magnitude = 0, sum = 0;
      for (std::int64_t j = 0; j <= t; ++j) {
        double absolute = 0;
        for (std::int64_t d = 0; d < h.head_dim; ++d) {
          const double product = double(q[d]) * s.k[j * s.KvWidth() + g * h.head_dim + d];
          score[j] += product * s.Scale();
          absolute += std::fabs(product) * s.Scale();
        }
        magnitude = std::max(magnitude, absolute);
        sum += std::exp(score[j]);
      }
      for (std::int64_t j = 0; j <= t; ++j) {
        for (std::int64_t d = 0; d < h.head_dim; ++d) {
          exact[d] += std::exp(score[j]) / sum * s.v[j * s.KvWidth() + g * h.head_dim + d];
        }
      }
      // A score is off by (Dh + 2) units of its magnitude, which a weight feels twice (itself and
      // the sum); a chain of at most 64 positions, 3 folds, exp and the division; |v| <= 1.
      const double bound = (2 * (h.head_dim + 2) * magnitude + 64 + 16 + 12) * kUnit;
      for (std::int64_t d = 0; d < h.head_dim; ++d) {
        ASSERT_NEAR(out[row * h.head_dim + d], exact[d], bound) << row << " " << d;
      }
      ASSERT_NEAR(out[s.length * s.QWidth() + row], std::log(sum),
                  bound + 4 * kUnit * std::log(sum));
    }
  }
}

TEST(Attention, HasTheSameBitsInAllVariants) {
  for (const Heads& h : kHeads) {
    const Sequence s(h, 85, 3, 1);
    SCOPED_TRACE(::testing::Message() << h.heads << "/" << h.kv_heads << "x" << h.head_dim);
    ExpectSameBitsInAllVariants([&] { return s.Prefill(); });
  }
}

TEST(Attention, PrefillDecodeChunksAndAnyOrderGiveTheSameBits) {
  for (const Heads& h : kHeads) {
    const Sequence s(h, 150, 5, 1);
    const Floats whole = s.Prefill();
    const std::int64_t lse_at = s.length * s.QWidth();
    const auto expect_rows = [&](const std::vector<std::int32_t>& positions) {
      const Floats some = s.Run(positions);
      for (std::size_t i = 0; i < positions.size(); ++i) {
        const std::int64_t p = positions[i];
        ASSERT_TRUE(SameBits(Slice(some, i * s.QWidth(), s.QWidth()),
                             Slice(whole, p * s.QWidth(), s.QWidth())))
            << "position " << p;
        ASSERT_TRUE(SameBits(Slice(some, positions.size() * s.QWidth() + i * h.heads, h.heads),
                             Slice(whole, lse_at + p * h.heads, h.heads)));
      }
    };
    for (CpuVariant variant : AvailableVariants()) {
      const VariantScope scope(variant);
      for (std::int32_t p : {0, 15, 16, 63, 64, 65, 127, 128, 149}) expect_rows({p});
      for (std::int32_t chunk : {2, 5, 7, 13}) {
        for (std::int32_t p = 60; p + chunk <= 70; p += chunk) {
          std::vector<std::int32_t> positions(chunk);
          std::iota(positions.begin(), positions.end(), p);
          expect_rows(positions);
        }
      }
      expect_rows({149, 3, 64, 63, 0, 128, 16});  // one table, far apart, out of order
    }
  }
}

TEST(Attention, PageLayoutAndStaleContentsChangeNothing) {
  for (const Heads& h : kHeads) {
    const Floats expected = Sequence(h, 100, 7, 1).Prefill();
    for (unsigned layout : {2u, 3u}) {
      EXPECT_TRUE(SameBits(Sequence(h, 100, 7, layout).Prefill(), expected));
    }
    // The unwritten slots of the last page held NaN above; infinities and numbers do as little.
    for (float stale : {kInf, 1.0f}) {
      Sequence s(h, 100, 7, 4);
      for (float& value : s.pool) value = std::isnan(value) ? stale : value;
      EXPECT_TRUE(SameBits(s.Prefill(), expected));
    }
  }
}

TEST(Attention, RowsOfOtherSequencesInTheBatchChangeNothing) {
  const Heads h = kHeads[1];
  const Sequence a(h, 90, 11, 1), b(h, 40, 13, 2);
  // Both sequences in one pool: b's pages behind a's.
  Floats pool = a.pool;
  Append(&pool, b.pool);
  const std::size_t page = KvPageFloats(h.kv_heads, h.head_dim);
  std::vector<std::int32_t> b_table = b.table;
  for (std::int32_t& id : b_table) id += static_cast<std::int32_t>(a.pool.size() / (2 * page));
  const KvPages pages{pool.data(), pool.data() + page, 2 * page};
  const std::vector<std::int32_t> positions = {89, 39, 88, 20, 21, 70};
  const std::vector<const std::int32_t*> tables = {a.table.data(), b_table.data(), a.table.data(),
                                                   b_table.data(), b_table.data(), a.table.data()};
  Floats rows, out(positions.size() * a.QWidth());
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const Sequence& s = tables[i] == a.table.data() ? a : b;
    Append(&rows, Slice(s.q, positions[i] * s.QWidth(), s.QWidth()));
  }
  Attention(6, h.heads, h.kv_heads, h.head_dim, rows.data(), a.QWidth(), tables.data(),
            positions.data(), a.Scale(), pages, out.data(), a.QWidth(), nullptr);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const Sequence& s = tables[i] == a.table.data() ? a : b;
    EXPECT_TRUE(SameBits(Slice(out, i * a.QWidth(), a.QWidth()),
                         Slice(s.Run({positions[i]}), 0, a.QWidth())));
  }
}

TEST(Attention, ChangesWithEveryPositionItMaySee) {
  const Heads h = kHeads[0];
  Sequence s(h, 70, 17, 1);
  const Floats before = s.Run({69});
  for (std::int32_t p : {0, 63, 64, 69}) {
    Sequence changed(h, 70, 17, 1);
    changed.pages
        .v_base[changed.table[p / 16] * changed.pages.page_stride_floats + (p % 16) * h.head_dim] +=
        1.0f;
    EXPECT_FALSE(SameBits(changed.Run({69}), before)) << p;
  }
}

TEST(ReadKv, ReturnsWhatWasWritten) {
  const Sequence s(kHeads[1], 37, 19, 3);
  Floats k(20 * s.KvWidth()), v(20 * s.KvWidth());
  ReadKv(s.h.kv_heads, s.h.head_dim, s.table.data(), 10, 30, s.pages, k.data(), s.KvWidth(),
         v.data(), s.KvWidth());
  EXPECT_TRUE(SameBits(k, Slice(s.k, 10 * s.KvWidth(), 20 * s.KvWidth())));
  EXPECT_TRUE(SameBits(v, Slice(s.v, 10 * s.KvWidth(), 20 * s.KvWidth())));
}

}  // namespace
}  // namespace thresher::kernels
