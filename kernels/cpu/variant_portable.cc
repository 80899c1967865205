#define THRESHER_VARIANT portable
#include "kernels/cpu/variant.inl"

namespace thresher::kernels {

const KernelTable& PortableTable() { return portable::kTable; }

}  // namespace thresher::kernels
