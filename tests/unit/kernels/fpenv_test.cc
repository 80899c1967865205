#include "kernels/cpu/fpenv.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/math.h"
#include "tests/unit/kernels/kernel_testing.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace thresher::kernels {
namespace {

using namespace testing;

constexpr unsigned kFlushAndTowardZero = 0x8000 | 0x6000 | 0x0040;  // FTZ, round to zero, DAZ

// Sets a hostile environment as a library might, and puts the old one back.
class HostileFpEnv {
 public:
  HostileFpEnv() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushAndTowardZero); }
  ~HostileFpEnv() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};

TEST(FpEnv, ScopePinsAndRestores) {
  const HostileFpEnv hostile;
  EXPECT_FALSE(FpEnvIsPinned());
  {
    const ScopedFpEnv scope;
    EXPECT_TRUE(FpEnvIsPinned());
  }
  EXPECT_FALSE(FpEnvIsPinned());
  EXPECT_EQ(_mm_getcsr() & kFlushAndTowardZero, kFlushAndTowardZero);
  PinFpEnv();
  EXPECT_TRUE(FpEnvIsPinned());
}

TEST(FpEnv, KernelsGiveTheSameBitsUnderAHostileEnvironment) {
  const Floats x = Random(3 * 40, 1, 1e-19f), w = Random(5 * 40, 2, 1e-19f);  // denormal products
  Floats packed(PackedFloats(5, 40));
  PackF32(5, 40, w.data(), packed.data());
  const auto compute = [&] {
    Floats y(3 * 5);
    Gemm(3, 5, 40, x.data(), 40, {packed.data()}, nullptr, y.data(), 5);
    y.push_back(Exp(-100.0f));
    return y;
  };
  const Floats expected = compute();
  EXPECT_GT(expected.back(), 0.0f);
  const HostileFpEnv hostile;
  EXPECT_TRUE(SameBits(compute(), expected));
}

}  // namespace
}  // namespace thresher::kernels
#endif
