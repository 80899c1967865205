// The portable products with a K-split planted where there are fewer than four rows: what the row
// purity test must catch. Not a variant of the library.
#define THRESHER_VARIANT planted
#define THRESHER_PLANTED_K_SPLIT
#pragma GCC diagnostic ignored "-Wunused-function"  // one product of several is of interest
#include "kernels/cpu/gemm.inl"

namespace thresher::kernels {

void PlantedGemm(std::int64_t t, std::int64_t n, std::int64_t k, const float* x, std::int64_t ldx,
                 PackedMatrix w, float* y, std::int64_t ldy) {
  planted::GemmPacked(t, n, k, x, ldx, w, nullptr, y, ldy);
}

}  // namespace thresher::kernels
