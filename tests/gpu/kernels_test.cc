// kernels/cuda on a device: bit for bit what kernels/cpu gives.
#include <gtest/gtest.h>

#include "kernels/cpu/embedding.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "kernels/cpu/value_head.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/value_head.h"
#include "tests/gpu/device_testing.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

namespace thresher::kernels {
namespace {

using namespace testing;
using gpu::testing::OnDevice;

constexpr cudaStream_t kStream = nullptr;
constexpr std::int64_t kRows[] = {1, 7, 300}, kWidths[] = {1, 16, 17, 96, 1000};

class CudaKernels : public gpu::testing::DeviceTest {};

TEST_F(CudaKernels, RmsNorm) {
  for (std::int64_t t : kRows) {
    for (std::int64_t d : kWidths) {
      const Floats x = Random(t * d, 1, 3.0f), weight = Random(d, 2), dy = Random(t * d, 3);
      Floats y(t * d), inv(t), dx(t * d), dweight = Random(d, 4);
      const OnDevice<float> gx(x), gw(weight), gdy(dy), gy(y), ginv(inv), gdx(dx), gdw(dweight);
      RmsNormForward(t, d, x.data(), weight.data(), 1e-6f, y.data(), inv.data());
      RmsNormBackward(t, d, x.data(), weight.data(), inv.data(), dy.data(), dx.data(),
                      dweight.data());
      ASSERT_EQ(
          cuda::RmsNormForward(kStream, t, d, gx.data(), gw.data(), 1e-6f, gy.data(), ginv.data()),
          cudaSuccess);
      ASSERT_EQ(cuda::RmsNormBackward(kStream, t, d, gx.data(), gw.data(), ginv.data(), gdy.data(),
                                      gdx.data(), gdw.data()),
                cudaSuccess);
      EXPECT_TRUE(SameBits(gy.Read(), y)) << t << "x" << d;
      EXPECT_TRUE(SameBits(ginv.Read(), inv));
      EXPECT_TRUE(SameBits(gdx.Read(), dx));
      EXPECT_TRUE(SameBits(gdw.Read(), dweight));
    }
  }
}

TEST_F(CudaKernels, Rope) {
  const std::int64_t head_dim = 64, heads = 3, ldx = 200, t = 50;
  Floats cos(100 * head_dim / 2), sin(cos.size());
  RopeTable(100, head_dim, 10000.0, cos.data(), sin.data());
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < t; ++i) positions.push_back(i * 37 % 100);
  for (bool inverse : {false, true}) {
    Floats x = Random(t * ldx, 1);
    const OnDevice<float> gx(x), gcos(cos), gsin(sin);
    const OnDevice<std::int32_t> gpositions(positions);
    RopeApply(t, heads, head_dim, positions.data(), cos.data(), sin.data(), x.data(), ldx, inverse);
    ASSERT_EQ(cuda::RopeApply(kStream, t, heads, head_dim, gpositions.data(), gcos.data(),
                              gsin.data(), gx.data(), ldx, inverse),
              cudaSuccess);
    EXPECT_TRUE(SameBits(gx.Read(), x));
  }
}

TEST_F(CudaKernels, Swiglu) {
  for (std::int64_t t : kRows) {
    for (std::int64_t f : kWidths) {
      const Floats gate = Random(t * f, 1, 50.0f), up = Random(t * f, 2), dy = Random(t * f, 3);
      Floats y(t * f), dgate(t * f), dup(t * f);
      const OnDevice<float> ggate(gate), gup(up), gdy(dy), gy(y), again(y), gdgate(dgate),
          gdup(dup);
      SwigluForward(t, f, gate.data(), f, up.data(), f, y.data(), f);
      SwigluBackward(t, f, gate.data(), f, up.data(), f, dy.data(), f, dgate.data(), f, dup.data(),
                     f);
      ASSERT_EQ(cuda::SwigluForward(kStream, t, f, ggate.data(), f, gup.data(), f, gy.data(), f),
                cudaSuccess);
      ASSERT_EQ(cuda::SwigluBackward(kStream, t, f, ggate.data(), f, gup.data(), f, gdy.data(), f,
                                     gdgate.data(), f, gdup.data(), f, again.data(), f),
                cudaSuccess);
      EXPECT_TRUE(SameBits(gy.Read(), y)) << t << "x" << f;
      EXPECT_TRUE(SameBits(again.Read(), y));
      EXPECT_TRUE(SameBits(gdgate.Read(), dgate));
      EXPECT_TRUE(SameBits(gdup.Read(), dup));
    }
  }
}

TEST_F(CudaKernels, ValueHead) {
  for (std::int64_t t : kRows) {
    for (std::int64_t d : kWidths) {
      const std::int64_t ldh = d + 2;
      const Floats hidden = Random(t * ldh, 1, 3.0f), weight = Random(d, 2), bias = Random(1, 3);
      Floats dvalue = Random(t, 4), value(t), dweight = Random(d, 5), dbias = Random(1, 6);
      Floats dhidden = Random(t * ldh, 7);
      for (std::int64_t i = 0; i < t; i += 3) dvalue[i] = 0;  // outside the loss
      const OnDevice<float> gh(hidden), gw(weight), gb(bias), gdv(dvalue), gv(value), gdw(dweight),
          gdb(dbias), gdh(dhidden);
      ASSERT_EQ(cuda::ValueHeadForward(kStream, t, d, gh.data(), ldh, gw.data(), gb.data(),
                                       gv.data()),
                cudaSuccess);
      ASSERT_EQ(cuda::ValueHeadBackward(kStream, {t, d, gh.data(), ldh, gw.data(), gdv.data(),
                                                  gdh.data(), ldh, gdw.data(), gdb.data()}),
                cudaSuccess);
      ValueHeadForward(t, d, hidden.data(), ldh, weight.data(), bias.data(), value.data());
      ValueHeadBackward({t, d, hidden.data(), ldh, weight.data(), dvalue.data(), dhidden.data(),
                         ldh, dweight.data(), dbias.data()});
      EXPECT_TRUE(SameBits(gv.Read(), value)) << t << "x" << d;
      EXPECT_TRUE(SameBits(gdw.Read(), dweight));
      EXPECT_TRUE(SameBits(gdb.Read(), dbias));
      EXPECT_TRUE(SameBits(gdh.Read(), dhidden));
    }
  }
}

TEST_F(CudaKernels, Embedding) {
  const std::int64_t t = 70, d = 33, v = 11;
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < t; ++i) ids.push_back(i * 7 % 11);
  const Floats table = Random(v * d, 1), dy = Random(t * d, 2);
  Floats y(t * d), dtable = Random(v * d, 3);
  const OnDevice<float> gtable(table), gdy(dy), gy(y), gdtable(dtable);
  const OnDevice<std::int32_t> gids(ids);
  EmbeddingForward(t, d, v, ids.data(), table.data(), y.data());
  EmbeddingBackward(t, d, v, ids.data(), dy.data(), dtable.data());
  ASSERT_EQ(cuda::EmbeddingForward(kStream, t, d, v, gids.data(), gtable.data(), gy.data()),
            cudaSuccess);
  ASSERT_EQ(cuda::EmbeddingBackward(kStream, t, d, v, gids.data(), gdy.data(), gdtable.data()),
            cudaSuccess);
  EXPECT_TRUE(SameBits(gy.Read(), y));
  EXPECT_TRUE(SameBits(gdtable.Read(), dtable));
}

constexpr cuda::GemmForm kForms[] = {cuda::GemmForm::kAuto, cuda::GemmForm::kElement,
                                     cuda::GemmForm::kStream, cuda::GemmForm::kTile};

TEST_F(CudaKernels, Products) {
  struct Shape {
    std::int64_t t, n, k;
  };
  for (const Shape& s :
       {Shape{1, 1, 1}, Shape{5, 70, 100}, Shape{40, 33, 513}, Shape{3, 96, 1100},
        Shape{2, 40, 4609}, Shape{130, 129, 31}, Shape{8, 5, 0}, Shape{17, 300, 18}}) {
    const Floats x = Random(s.t * s.k, 1), bias = Random(s.n, 2);
    for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
      const Image image = RandomImage(type, s.n, s.k, 3);
      const std::int64_t ldy = s.n + 3;
      Floats y(s.t * ldy, kNaN);
      Gemm(s.t, s.n, s.k, x.data(), s.k, image.matrix(), bias.data(), y.data(), ldy);
      const OnDevice<float> gx(x), gbias(bias);
      const OnDevice<std::uint8_t> gimage(image.bytes());
      for (cuda::GemmForm form : kForms) {
        const OnDevice<float> gy(Floats(y.size(), kNaN));
        ASSERT_EQ(cuda::Gemm(kStream, s.t, s.n, s.k, gx.data(), s.k, {gimage.data(), type},
                             gbias.data(), gy.data(), ldy, form),
                  cudaSuccess);
        EXPECT_TRUE(SameBits(gy.Read(), y)) << WeightTypeName(type) << " " << s.k << int(form);
      }
    }
  }
}

TEST_F(CudaKernels, AProductOfNothingButNegativeUnderflowKeepsItsSign) {
  // Chains that end as -0: a padding value multiplied in would make them +0.
  const std::int64_t t = 3, n = 40, k = 5;
  const Floats x(t * k, -0x1p-100f), w(n * k, 0x1p-100f);
  Floats y(t * n);
  const Image image = Packed(WeightType::kF32, n, k, w.data());
  Gemm(t, n, k, x.data(), k, image.matrix(), nullptr, y.data(), n);
  ASSERT_TRUE(std::signbit(y[0]));
  const OnDevice<float> gx(x);
  const OnDevice<std::uint8_t> gimage(image.bytes());
  for (cuda::GemmForm form : kForms) {
    const OnDevice<float> gy(Floats(y.size(), kNaN));
    ASSERT_EQ(cuda::Gemm(kStream, t, n, k, gx.data(), k, {gimage.data(), WeightType::kF32}, nullptr,
                         gy.data(), n, form),
              cudaSuccess);
    EXPECT_TRUE(SameBits(gy.Read(), y));
  }
}

TEST_F(CudaKernels, WeightGradients) {
  struct Shape {
    std::int64_t t, n, k;
  };
  for (const Shape& s : {Shape{1, 1, 1}, Shape{40, 33, 150}, Shape{17, 130, 129}}) {
    const std::int64_t lddy = s.n + 1, ldx = s.k + 5;
    const Floats x = Random(s.t * ldx, 1), dy = Random(s.t * lddy, 4),
                 before = Random(s.n * s.k, 5);
    Floats dw = before, dbias = Random(s.n, 6);
    const OnDevice<float> gx(x), gdy(dy), gdbias(dbias);
    GemmAccumulateWeightGrad(s.t, s.n, s.k, dy.data(), lddy, x.data(), ldx, dw.data());
    BiasGrad(s.t, s.n, dy.data(), lddy, dbias.data());
    for (cuda::GemmForm form : {cuda::GemmForm::kAuto, cuda::GemmForm::kElement}) {
      const OnDevice<float> gdw(before);
      ASSERT_EQ(cuda::GemmAccumulateWeightGrad(kStream, s.t, s.n, s.k, gdy.data(), lddy, gx.data(),
                                               ldx, gdw.data(), form),
                cudaSuccess);
      EXPECT_TRUE(SameBits(gdw.Read(), dw));
    }
    ASSERT_EQ(cuda::BiasGrad(kStream, s.t, s.n, gdy.data(), lddy, gdbias.data()), cudaSuccess);
    EXPECT_TRUE(SameBits(gdbias.Read(), dbias));
  }
}

}  // namespace
}  // namespace thresher::kernels
