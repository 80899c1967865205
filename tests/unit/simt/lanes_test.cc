// The operations of kernels/cuda as a device's threads run them, on the host: bit for bit those of
// kernels/cpu, and nothing written beyond their shapes.
#include <gtest/gtest.h>

#define THRESHER_VARIANT simt_lanes
#define THRESHER_VEC_SIMT
#include "kernels/cpu/math.h"
#include "kernels/cpu/math.inl"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cpu/rmsnorm.inl"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/rope.inl"
#include "kernels/cpu/swiglu.h"
#include "kernels/cpu/swiglu.inl"
#include "kernels/cuda/gemm_element.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"
#include "tests/unit/simt/simt_host.h"

namespace thresher::kernels {
namespace {

using namespace testing;

constexpr std::int64_t kWidths[] = {1, 8, 15, 16, 17, 96, 100, 256};

TEST(SimtGroup, ShufflesAmongItsThreads) {
  Floats seen(16);
  simt::RunGroup([&] {
    const auto lane = static_cast<float>(simt::Lane());
    seen[simt::Lane()] = simt::ShuffleXor(lane, 5) * 100 + simt::ShuffleXor(lane, 8);
  });
  for (int lane = 0; lane < 16; ++lane) {
    EXPECT_EQ(seen[lane], static_cast<float>((lane ^ 5) * 100 + (lane ^ 8)));
  }
}

TEST(SimtGroupDeath, AShuffleThatSomeThreadsDoNotReachIsCaught) {
  EXPECT_DEATH(simt::RunGroup([] {
                 if (simt::Lane() < 3) simt::ShuffleXor(1, 1);
               }),
               "a shuffle that 3 of 16 threads reached");
}

TEST(SimtLanes, ExpAndLogHaveTheBitsOfTheHost) {
  Floats x = Random(4000, 1, 120.0f);
  for (float special : {0.0f, -0.0f, 89.0f, -104.0f, 200.0f, -200.0f, 1e-40f, kInf, -kInf, kNaN}) {
    x.push_back(special);
  }
  const auto n = static_cast<std::int64_t>(x.size());
  Floats here(x.size()), there(x.size(), kNaN);
  Exp(n, x.data(), here.data());
  simt::RunGroup([&] { simt_lanes::ExpArray(n, x.data(), there.data()); });
  EXPECT_TRUE(SameBits(here, there));
  Log(n, x.data(), here.data());
  simt::RunGroup([&] { simt_lanes::LogArray(n, x.data(), there.data()); });
  EXPECT_TRUE(SameBits(here, there));
}

TEST(SimtLanes, RmsNormHasTheBitsOfTheHost) {
  for (std::int64_t d : kWidths) {
    const Floats x = Random(3 * d, 1, 4.0f), weight = Random(d, 2), dy = Random(3 * d, 3);
    Floats here(3 * d), there(3 * d, kNaN), inv_here(3), inv_there(3), dx_here(3 * d),
        dx_there(3 * d, kNaN);
    RmsNormForward(3, d, x.data(), weight.data(), 1e-6f, here.data(), inv_here.data());
    RmsNormBackward(3, d, x.data(), weight.data(), inv_here.data(), dy.data(), dx_here.data(),
                    nullptr);
    for (std::int64_t i = 0; i < 3; ++i) {
      simt::RunGroup([&] {
        simt_lanes::RmsNormForward(1, d, &x[i * d], weight.data(), 1e-6f, &there[i * d],
                                   &inv_there[i]);
      });
      simt::RunGroup([&] {
        simt_lanes::RmsNormBackward(1, d, &x[i * d], weight.data(), &inv_there[i], &dy[i * d],
                                    &dx_there[i * d], nullptr);
      });
    }
    EXPECT_TRUE(SameBits(here, there)) << d;
    EXPECT_TRUE(SameBits(inv_here, inv_there)) << d;
    EXPECT_TRUE(SameBits(dx_here, dx_there)) << d;
  }
}

TEST(SimtLanes, RopeHasTheBitsOfTheHost) {
  for (std::int64_t head_dim : {2, 16, 24, 64, 128}) {
    const std::int64_t heads = 2, ldx = heads * head_dim + 3;
    Floats cos(20 * head_dim / 2), sin(cos.size());
    RopeTable(20, head_dim, 10000.0, cos.data(), sin.data());
    for (bool inverse : {false, true}) {
      const std::int32_t positions[] = {19, 0};
      Floats here = Random(2 * ldx, 1), there = here;
      RopeApply(2, heads, head_dim, positions, cos.data(), sin.data(), here.data(), ldx, inverse);
      for (std::int64_t unit = 0; unit < 2 * heads; ++unit) {
        const std::int64_t i = unit / heads, h = unit % heads;
        simt::RunGroup([&] {
          simt_lanes::RopeApply(1, 1, head_dim, positions + i, cos.data(), sin.data(),
                                &there[i * ldx + h * head_dim], ldx, inverse);
        });
      }
      EXPECT_TRUE(SameBits(here, there)) << head_dim;
    }
  }
}

TEST(SimtLanes, SwigluHasTheBitsOfTheHost) {
  for (std::int64_t f : kWidths) {
    const Floats gate = Random(f, 1, 60.0f), up = Random(f, 2), dy = Random(f, 3);
    Floats here(3 * f), there(3 * f + 16, kNaN);
    SwigluBackward(1, f, gate.data(), f, up.data(), f, dy.data(), f, here.data(), f, &here[f], f,
                   &here[2 * f], f);
    simt::RunGroup([&] {
      simt_lanes::SwigluBackward(1, f, gate.data(), f, up.data(), f, dy.data(), f, there.data(), f,
                                 &there[f], f, &there[2 * f], f);
    });
    EXPECT_TRUE(SameBits(here, Slice(there, 0, 3 * f))) << f;
    for (std::int64_t i = 3 * f; i < 3 * f + 16; ++i) EXPECT_TRUE(std::isnan(there[i]));
  }
}

TEST(SimtElement, ProductsHaveTheBitsOfTheHost) {
  struct Shape {
    std::int64_t t, n, k;
  };
  for (const Shape& s : {Shape{1, 1, 1}, Shape{3, 40, 17}, Shape{2, 33, 512}, Shape{2, 70, 1025}}) {
    const Floats x = Random(s.t * s.k, 1), bias = Random(s.n, 2);
    for (WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kF16}) {
      const Image packed = RandomImage(type, s.n, s.k, 3);
      for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
        Floats here(s.t * s.n), there(s.t * s.n);
        Gemm(s.t, s.n, s.k, x.data(), s.k, packed.matrix(), b, here.data(), s.n);
        for (std::int64_t i = 0; i < s.t * s.n; ++i) {
          there[i] = cuda::GemmElement(s.k, &x[i / s.n * s.k], packed.data(), type, i % s.n, b);
        }
        EXPECT_TRUE(SameBits(here, there)) << WeightTypeName(type) << " " << s.k;
      }
    }
  }
}

TEST(SimtElement, WeightGradientsHaveTheBitsOfTheHost) {
  const std::int64_t t = 50, n = 7, k = 21;
  const Floats dy = Random(t * n, 1), x = Random(t * k, 2);
  Floats here = Random(n * k, 3), there = here;
  GemmAccumulateWeightGrad(t, n, k, dy.data(), n, x.data(), k, here.data());
  for (std::int64_t i = 0; i < n * k; ++i) {
    there[i] = cuda::WeightGradElement(t, &dy[i / k], n, &x[i % k], k, there[i]);
  }
  EXPECT_TRUE(SameBits(here, there));
}

}  // namespace
}  // namespace thresher::kernels
