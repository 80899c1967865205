#define THRESHER_VARIANT avx2
#define THRESHER_VEC_AVX2
#include "kernels/cpu/variant.inl"

namespace thresher::kernels {

const KernelTable& Avx2Table() { return avx2::kTable; }

}  // namespace thresher::kernels
