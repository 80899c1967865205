#define THRESHER_VARIANT avx512
#define THRESHER_VEC_AVX512
#include "kernels/cpu/variant.inl"

namespace thresher::kernels {

const KernelTable& Avx512Table() { return avx512::kTable; }

}  // namespace thresher::kernels
