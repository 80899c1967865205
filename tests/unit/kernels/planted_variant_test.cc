// The portable variant with a K-split planted in products of fewer than four rows: what the row
// purity test must catch. Not a variant of the library.
#define THRESHER_VARIANT planted
#define THRESHER_PLANTED_K_SPLIT
#include "kernels/cpu/variant.inl"

namespace thresher::kernels {

const KernelTable& PlantedTable() { return planted::kTable; }

}  // namespace thresher::kernels
