#include <string>

#include "kernels/cpu/gemm.h"
#include "tests/unit/kernels/kernel_testing.h"
#include "tests/unit/kernels/packed_testing.h"

// Row purity of products as a property: over random shapes, batches, places, cuts and leading
// dimensions, a row's output is the one it has alone.
namespace thresher::kernels {

// planted_variant_test.cc
void PlantedGemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
                 PackedMatrix w, float* y, std::int64_t ldy);

namespace {

using namespace testing;

using Product = std::function<void(std::int64_t t, std::int64_t n, std::int64_t k, const float* x,
                                   std::int64_t ldx, PackedMatrix w, float* y, std::int64_t ldy)>;

class Draw {
 public:
  explicit Draw(unsigned seed) : engine_(seed) {}
  // In [low, high].
  std::int64_t operator()(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(engine_() % static_cast<unsigned>(high - low + 1));
  }

 private:
  std::mt19937 engine_;
};

// What breaks in case `seed`; empty if nothing does.
std::string Violation(unsigned seed, const Product& product) {
  Draw draw(seed);
  const auto type = static_cast<WeightType>(draw(0, 2));
  const std::int64_t n = draw(1, 100), k = draw(0, 3) == 0 ? draw(500, 1100) : draw(1, 200);
  const std::int64_t rows = draw(1, 64), ldx = k + draw(0, 20), ldy = n + draw(0, 20);
  const Image packed = RandomImage(type, n, k, seed + 1);
  const Floats x = Random(rows * ldx, seed + 2);
  Floats alone(rows * n), batch(rows * ldy, kNaN);
  for (std::int64_t i = 0; i < rows; ++i) {
    product(1, n, k, &x[i * ldx], ldx, packed.matrix(), &alone[i * n], n);
  }
  for (std::int64_t i = 0; i < rows;) {  // any cut of the rows into calls
    const std::int64_t count = draw(1, rows - i);
    const std::int64_t panels = draw(0, (n - 1) / kGemmPanel) * kGemmPanel;
    if (panels > 0) {  // and of the columns
      product(count, panels, k, &x[i * ldx], ldx, packed.matrix(), &batch[i * ldy], ldy);
    }
    product(count, n - panels, k, &x[i * ldx], ldx, PackedFrom(packed.matrix(), k, panels),
            &batch[i * ldy + panels], ldy);
    i += count;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    if (!SameBits(Slice(batch, i * ldy, n), Slice(alone, i * n, n))) {
      return "case " + std::to_string(seed) + ": row " + std::to_string(i) + " of " +
             std::to_string(rows) + ", N " + std::to_string(n) + ", K " + std::to_string(k) + ", " +
             WeightTypeName(type);
    }
  }
  return "";
}

void PublicGemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
                PackedMatrix w, float* y, std::int64_t ldy) {
  Gemm(t, n, k, x, ldx, w, nullptr, y, ldy);
}

TEST(RowPurity, HoldsForEveryProduct) {
  for (CpuVariant variant : AvailableVariants()) {
    const VariantScope scope(variant);
    for (KernelSet set : kKernelSets) {
      const KernelSetScope set_scope(set);
      // The portable variant writes out what others have instructions for.
      const unsigned cases = variant == CpuVariant::kPortable ? 20 : 250;
      for (unsigned seed = 0; seed < cases; ++seed) {
        ASSERT_EQ(Violation(seed, PublicGemm), "")
            << CpuVariantName(variant) << ", " << KernelSetName(set);
      }
    }
  }
}

TEST(RowPurity, APlantedKSplitIsCaught) {
  std::string caught;
  for (unsigned seed = 0; seed < 20 && caught.empty(); ++seed) {
    caught = Violation(seed, PlantedGemm);
  }
  EXPECT_NE(caught, "");
}

}  // namespace
}  // namespace thresher::kernels
