// Products of cuda-bf16-sm90-v1: every form against float64 and the plain form, and the same bits
// in all of them, whatever T and its neighbours.
#include "kernels/cuda/gemm_bf16.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/cuda/gemm_bf16_plan.h"
#include "kernels/cuda/weight_grad_bf16.h"
#include "tests/gpu/bf16_testing.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#if defined(THRESHER_CUDA_SIM)
#include "tests/support/cuda_sim/cuda_sim.h"
#endif

namespace thresher::kernels::cuda {
namespace {

using gpu::testing::OnDevice;
using kernels::testing::Floats;
using kernels::testing::Random;
using kernels::testing::SameBits;
using testing::Bf16Matrix;

constexpr cudaStream_t kStream = nullptr;
constexpr std::size_t kScratchBytes = 2 << 20;  // enough for these shapes
constexpr float kPoison = 12345.0f;

class GemmBf16Test : public gpu::testing::DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    scratch_ = gpu::MakeDeviceMemory(kScratchBytes).value();
    const std::string refused = OpenBf16Device(kStream, scratch_.data(), kScratchBytes, &device_);
    if (!refused.empty()) GTEST_SKIP() << refused;
  }

  // What one form computes; rows behind T keep the poison.
  Floats Run(Bf16Form form, bool grad, const Bf16Matrix& x, const Bf16Matrix& w,
             const Bf16Output& with = {}) {
    const std::int64_t n = grad ? w.columns() : w.rows();
    const OnDevice<float> y(Floats(static_cast<std::size_t>((x.rows() + 1) * n), kPoison));
    Bf16Output out = with;
    out.y = y.data();
    out.ldy = n;
    EXPECT_EQ(GemmBf16By(device_, kStream, form, grad, x.view(), w.view(), out), cudaSuccess);
    return Checked(y.Read(), n);
  }
  Floats RunPlain(bool grad, const Bf16Matrix& x, const Bf16Matrix& w,
                  const Bf16Output& with = {}) {
    const std::int64_t n = grad ? w.columns() : w.rows();
    const OnDevice<float> y(Floats(static_cast<std::size_t>((x.rows() + 1) * n), kPoison));
    Bf16Output out = with;
    out.y = y.data();
    out.ldy = n;
    EXPECT_EQ(GemmBf16Plain(kStream, grad, x.view(), w.view(), out), cudaSuccess);
    return Checked(y.Read(), n);
  }
  // Without the row behind the last, which must be as it was.
  static Floats Checked(Floats y, std::int64_t n) {
    for (std::size_t i = y.size() - static_cast<std::size_t>(n); i < y.size(); ++i) {
      EXPECT_EQ(y[i], kPoison);
    }
    y.resize(y.size() - static_cast<std::size_t>(n));
    return y;
  }

  gpu::DeviceMemory scratch_;
  Bf16Device device_;
};

struct Shape {
  std::int64_t t, n, k;
};

std::vector<Bf16Form> AllForms() {
  std::vector<Bf16Form> forms;
  for (int form = 0; form < kBf16Forms; ++form) forms.push_back(static_cast<Bf16Form>(form));
  return forms;
}

TEST_F(GemmBf16Test, EveryFormIsWithinItsBoundOfFloat64AndHasTheBitsOfTheOthers) {
  for (const Shape& s : {Shape{1, 1, 1}, Shape{5, 64, 64}, Shape{9, 70, 100}, Shape{33, 130, 520},
                         Shape{131, 200, 1100}, Shape{7, 65, 4200}}) {
    const Bf16Matrix x(s.t, s.k, 1), w(s.n, s.k, 2);
    const testing::Exact exact = testing::Product(x, w, /*grad=*/false);
    const Floats plain = RunPlain(false, x, w);
    EXPECT_TRUE(testing::WithinBound(plain, exact, s.k));
    const Floats tile = Run(Bf16Form::kTile, false, x, w);
    for (Bf16Form form : AllForms()) {
      const Floats y = Run(form, false, x, w);
      EXPECT_TRUE(testing::WithinBound(y, exact, s.k))
          << Bf16FormName(form) << " " << s.t << "x" << s.n << "x" << s.k;
      EXPECT_TRUE(SameBits(y, tile)) << Bf16FormName(form);
    }
  }
}

TEST_F(GemmBf16Test, AGradientOfTheInputIsTheProductOfTheTranspose) {
  for (const Shape& s : {Shape{1, 1, 1}, Shape{9, 70, 100}, Shape{40, 600, 130}}) {
    const Bf16Matrix dy(s.t, s.n, 1), w(s.n, s.k, 2);
    const testing::Exact exact = testing::Product(dy, w, /*grad=*/true);
    EXPECT_TRUE(testing::WithinBound(RunPlain(true, dy, w), exact, s.n));
    const Floats tile = Run(Bf16Form::kTile, true, dy, w);
    for (Bf16Form form : AllForms()) {
      const Floats dx = Run(form, true, dy, w);
      EXPECT_TRUE(testing::WithinBound(dx, exact, s.n)) << Bf16FormName(form) << " " << s.n;
      EXPECT_TRUE(SameBits(dx, tile)) << Bf16FormName(form);
    }
    EXPECT_TRUE(SameBits(tile, Run(Bf16Form::kTile, false, dy, w.Transposed())));
  }
}

TEST_F(GemmBf16Test, ARowHasTheSameBitsInEveryBatch) {
  const std::int64_t n = 72, k = 600;
  const Bf16Matrix pool(150, k, 1), w(n, k, 2);
  const Floats expected = Run(Bf16Form::kTile, false, pool, w);
  std::mt19937 engine(7);
  for (int mix = 0; mix < 40; ++mix) {
    const std::int64_t t = mix < 20 ? 1 + mix * 3 : 60 + mix;
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < t; ++i) rows.push_back(engine() % 150);
    const Bf16Matrix x = pool.Rows(rows);
    const OnDevice<float> y(Floats(static_cast<std::size_t>(t * n)));
    Bf16Output out;
    out.y = y.data();
    out.ldy = n;
    ASSERT_EQ(GemmBf16(device_, kStream, x.view(), w.view(), out), cudaSuccess);
    const Floats got = y.Read();
    for (std::int64_t i = 0; i < t; ++i) {
      const auto row = [n](const Floats& of, std::int64_t at) {
        return kernels::testing::Slice(of, at * n, n);
      };
      ASSERT_TRUE(SameBits(row(got, i), row(expected, rows[static_cast<std::size_t>(i)])))
          << "row " << i << " of " << t;
    }
  }
}

TEST_F(GemmBf16Test, NotANumberAndInfinityStayInTheirRow) {
  const std::int64_t t = 12, n = 70, k = 150;
  Bf16Matrix x(t, k, 1);
  const Bf16Matrix w(n, k, 2);
  const Floats clean = Run(Bf16Form::kTile, false, x, w);
  x.Set(3, 149, 0x7fc0);
  x.Set(8, 0, 0x7f80);
  for (Bf16Form form : AllForms()) {
    const Floats y = Run(form, false, x, w);
    for (std::int64_t i = 0; i < t * n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (i / n == 3) {
        EXPECT_TRUE(std::isnan(y[at]));
      } else if (i / n == 8) {
        EXPECT_FALSE(std::isfinite(y[at]));
      } else {
        EXPECT_EQ(y[at], clean[at]);
      }
    }
  }
}

TEST_F(GemmBf16Test, BiasAndBaseAreAddedInThatOrderAndRoundedOutputsAreThoseOfTheResult) {
  const std::int64_t t = 21, k = 90;
  for (std::int64_t n : {64, 72, 67}) {
    const Bf16Matrix x(t, k, 1), w(n, k, 2);
    const Floats bias = Random(n, 3), base = Random(t * n, 4);
    const Floats product = Run(Bf16Form::kTile, false, x, w);
    Floats expected(product.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] = base[i] + (product[i] + bias[i % static_cast<std::size_t>(n)]);
    }
    for (Bf16Form form : AllForms()) {
      const OnDevice<float> gbias(bias), gbase(base);
      const std::int64_t ld16 = Bf16RowStride(n);
      const OnDevice<std::uint16_t> y16(
          std::vector<std::uint16_t>(static_cast<std::size_t>(t * ld16), 0xabab));
      Bf16Output out;
      out.bias = gbias.data();
      out.base = gbase.data();  // and y is base itself
      out.ldbase = n;
      out.y = gbase.data();
      out.ldy = n;
      out.y16 = y16.data();
      out.ldy16 = ld16;
      ASSERT_EQ(GemmBf16By(device_, kStream, form, false, x.view(), w.view(), out), cudaSuccess);
      EXPECT_TRUE(SameBits(gbase.Read(), expected)) << Bf16FormName(form) << n;
      const auto halves = y16.Read();
      for (std::int64_t i = 0; i < t * ld16; ++i) {
        const std::int64_t column = i % ld16;
        const std::uint16_t want =
            column < n ? testing::Rounded(expected[static_cast<std::size_t>(i / ld16 * n + column)])
                       : 0xabab;
        ASSERT_EQ(halves[static_cast<std::size_t>(i)], want);
      }
    }
  }
}

TEST_F(GemmBf16Test, DividingATileOverBlocksChangesNoBit) {
  const Bf16Matrix x(20, 2100, 1), w(70, 2100, 2);  // 5 chunks
  for (Bf16Form form : AllForms()) {
    device_.multiprocessors = 1;
    const Floats together = Run(form, false, x, w);
    for (int multiprocessors : {4, 6, 200}) {
      device_.multiprocessors = multiprocessors;
      EXPECT_TRUE(SameBits(Run(form, false, x, w), together))
          << Bf16FormName(form) << " " << multiprocessors;
      // The scratch memory is left as it was found.
      EXPECT_TRUE(SameBits(Run(form, false, x, w), together));
    }
  }
}

TEST_F(GemmBf16Test, AGradientOfWeightsContinuesWhatStandsThere) {
  for (const Shape& s : {Shape{1, 1, 1}, Shape{20, 70, 100}, Shape{150, 130, 260}}) {
    const Bf16Matrix dy(s.t, s.n, 1), x(s.t, s.k, 2);
    const std::int64_t ld = s.k + 3;
    const Floats before = Random(s.n * ld, 3);
    const OnDevice<float> fast(before), plain(before);
    ASSERT_EQ(WeightGradBf16(device_, kStream, dy.view(), x.view(), fast.data(), ld), cudaSuccess);
    ASSERT_EQ(WeightGradBf16Plain(kStream, dy.view(), x.view(), plain.data(), ld), cudaSuccess);
    const testing::Exact exact = testing::Product(dy.Transposed(), x, /*grad=*/true);
    const Floats got = fast.Read(), slow = plain.Read();
    for (std::int64_t i = 0; i < s.n * ld; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (i % ld >= s.k) {
        ASSERT_EQ(got[at], before[at]);
        continue;
      }
      const auto value = static_cast<std::size_t>(i / ld * s.k + i % ld);
      const double sum = before[at] + exact.values[value];
      const double bound =
          Bf16WeightGradBound(s.t, exact.magnitudes[value] + std::fabs(before[at]));
      ASSERT_LE(std::fabs(got[at] - sum), bound) << i / ld << "," << i % ld << " of " << s.n;
      ASSERT_LE(std::fabs(slow[at] - sum), bound);
    }
  }
}

TEST_F(GemmBf16Test, AGradientOfWeightsHasTheSameBitsHoweverItIsDivided) {
  const std::int64_t t = 150, n = 140, k = 272;
  const Bf16Matrix dy(t, n, 1), x(t, k, 2);
  const Floats before = Random(n * k, 3);
  const OnDevice<float> whole(before), cut(before), few(before);
  ASSERT_EQ(WeightGradBf16(device_, kStream, dy.view(), x.view(), whole.data(), k), cudaSuccess);
  const auto rows = [](Bf16Rows of, std::int64_t first, std::int64_t count) {
    return Bf16Rows{of.data + first * of.ld, count, of.columns, of.ld};
  };
  for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 64}, {64, 86}}) {
    // And by outputs.
    for (const auto& [column, columns] :
         {std::pair<std::int64_t, std::int64_t>{0, 40}, {40, 100}}) {
      Bf16Rows part = rows(dy.view(), first, count);
      part.data += column;
      part.columns = columns;
      ASSERT_EQ(WeightGradBf16(device_, kStream, part, rows(x.view(), first, count),
                               cut.data() + column * k, k),
                cudaSuccess);
    }
  }
  EXPECT_TRUE(SameBits(cut.Read(), whole.Read()));
  device_.multiprocessors = 1;
  ASSERT_EQ(WeightGradBf16(device_, kStream, dy.view(), x.view(), few.data(), k), cudaSuccess);
  EXPECT_TRUE(SameBits(few.Read(), whole.Read()));
}

TEST_F(GemmBf16Test, RefusesWhatItCannotServe) {
  const Bf16Matrix x(3, 64, 1), w(64, 64, 2);
  const OnDevice<float> y(Floats(3 * 64, kPoison));
  Bf16Output out;
  out.y = y.data();
  out.ldy = 64;
  Bf16Rows bad = x.view();
  bad.ld = 65;
  EXPECT_EQ(GemmBf16(device_, kStream, bad, w.view(), out), cudaErrorInvalidValue);
  bad = x.view();
  bad.data += 1;
  EXPECT_EQ(GemmBf16(device_, kStream, bad, w.view(), out), cudaErrorInvalidValue);
  bad = x.view();
  bad.columns = 63;
  EXPECT_EQ(GemmBf16(device_, kStream, bad, w.view(), out), cudaErrorInvalidValue);
  Bf16Rows none = x.view();
  none.rows = 0;
  EXPECT_EQ(GemmBf16(device_, kStream, none, w.view(), out), cudaSuccess);
  device_.forms = 0;
  EXPECT_EQ(GemmBf16(device_, kStream, x.view(), w.view(), out), cudaErrorNotSupported);
  EXPECT_EQ(y.Read(), Floats(3 * 64, kPoison));
  EXPECT_NE(OpenBf16Device(kStream, scratch_.data(), 100, &device_), "");
}

#if defined(THRESHER_CUDA_SIM)
TEST_F(GemmBf16Test, AnotherArchitectureIsRefusedInOneLine) {
  cuda_sim::PretendCapability(8, 0);
  const std::string refused = OpenBf16Device(kStream, scratch_.data(), kScratchBytes, &device_);
  cuda_sim::PretendCapability(cuda_sim::kMajor, cuda_sim::kMinor);
  EXPECT_EQ(refused,
            "cuda-bf16-sm90-v1 is for compute capability 9.0 (H100, H200); device 0 has 8.0");
}
#endif

TEST(Bf16Plan, EveryNumberOfTokensHasTheSmallestFormWithRoomForIt) {
  const auto name = [](unsigned forms, std::int64_t t) {
    return std::string(Bf16FormName(static_cast<Bf16Form>(Bf16FormFor(forms, t))));
  };
  EXPECT_EQ(name(kAllBf16Forms, 1), "stream8");
  EXPECT_EQ(name(kAllBf16Forms, 8), "stream8");
  EXPECT_EQ(name(kAllBf16Forms, 9), "stream16");
  EXPECT_EQ(name(kAllBf16Forms, 17), "stream32");
  EXPECT_EQ(name(kAllBf16Forms, 64), "stream64");
  EXPECT_EQ(name(kAllBf16Forms, 65), "tile");
  EXPECT_EQ(name(kAllBf16Forms, 100000), "tile");
  EXPECT_EQ(name(0b00110, 3), "stream32");
  EXPECT_EQ(name(0b00110, 1000), "stream64");
  EXPECT_EQ(Bf16FormFor(0, 1), -1);
}

TEST(Bf16Plan, ChunksDependOnKAloneAndAreAtMostEight) {
  for (std::int64_t k : {1, 512, 513, 896, 4096, 4097, 4864, 8960, 14336, 151936}) {
    EXPECT_EQ(Bf16Chunk(k) % kBf16ChunkUnit, 0);
    EXPECT_LE((k + Bf16Chunk(k) - 1) / Bf16Chunk(k), kBf16MaxChunks);
  }
  EXPECT_EQ(Bf16Chunk(896), 512);
  EXPECT_EQ(Bf16Chunk(4864), 1024);
  EXPECT_EQ(Bf16Chunk(14336), 2048);
}

TEST(Bf16Plan, ItemsCoverEveryChunkOfEveryTileOnce) {
  for (std::int64_t tokens : {1, 128, 129, 1300, 5000}) {
    for (std::int64_t depth : {64, 896, 4864, 14336}) {
      for (int multiprocessors : {1, 4, 132}) {
        const Bf16Plan plan =
            MakePlan<TileShape>(tokens, 900, depth, multiprocessors, kBf16ScratchBytes);
        std::vector<int> seen(
            static_cast<std::size_t>(plan.output_tiles * plan.token_tiles * plan.chunks));
        for (std::int64_t index = 0; index < plan.items; ++index) {
          const Bf16Item item = ItemAt(plan, index);
          ASSERT_LT(item.output_tile, plan.output_tiles);
          ASSERT_LT(item.token_tile, plan.token_tiles);
          for (int chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
            const int tile = item.token_tile * plan.output_tiles + item.output_tile;
            ++seen[static_cast<std::size_t>(tile * plan.chunks + chunk)];
          }
        }
        EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
      }
    }
  }
}

TEST(Bf16Plan, FewTilesAreDividedOverBlocks) {
  const auto items = [](std::int64_t n, std::int64_t k) {
    return MakePlan<Stream8Shape>(1, n, k, 132, kBf16ScratchBytes).items;
  };
  EXPECT_EQ(items(1152, 896), 36);
  EXPECT_EQ(items(896, 4864), 70);
  EXPECT_EQ(items(9728, 896), 152);
  EXPECT_EQ(items(1536, 8960), 144);
  EXPECT_EQ(items(4096, 4096), 256);
  EXPECT_EQ(items(4096, 14336), 256);
  // Without memory for the sums they are not.
  EXPECT_EQ(MakePlan<Stream8Shape>(1, 896, 4864, 132, 0).items, 14);
}

}  // namespace
}  // namespace thresher::kernels::cuda
