#include "kernels/cpu/dispatch.h"

#include <atomic>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {
namespace {

const KernelTable& TableOf(CpuVariant variant) {
#if defined(THRESHER_KERNELS_X86)
  if (variant == CpuVariant::kAvx512) return Avx512Table();
  if (variant == CpuVariant::kAvx2) return Avx2Table();
#endif
  return PortableTable();
}

// Chosen at the first use and thereafter only by SetCpuVariant.
std::atomic<CpuVariant>& Active() {
  static std::atomic<CpuVariant> active{BestCpuVariant()};
  return active;
}

}  // namespace

bool CpuVariantAvailable(CpuVariant variant) {
  if (variant == CpuVariant::kPortable) return true;
#if defined(THRESHER_KERNELS_X86)
  // GCC's check includes that the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (variant == CpuVariant::kAvx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

CpuVariant BestCpuVariant() {
  if (CpuVariantAvailable(CpuVariant::kAvx512)) return CpuVariant::kAvx512;
  if (CpuVariantAvailable(CpuVariant::kAvx2)) return CpuVariant::kAvx2;
  return CpuVariant::kPortable;
}

void SetCpuVariant(CpuVariant variant) {
  Require(CpuVariantAvailable(variant), "SetCpuVariant: this CPU cannot run the variant");
  Active().store(variant, std::memory_order_relaxed);
}

CpuVariant ActiveCpuVariant() { return Active().load(std::memory_order_relaxed); }

const char* CpuVariantName(CpuVariant variant) {
  switch (variant) {
    case CpuVariant::kPortable:
      return "portable";
    case CpuVariant::kAvx2:
      return "avx2";
    case CpuVariant::kAvx512:
      return "avx512";
  }
  return "unknown";
}

const char* KernelSetName() { return "cpu-fp32-v1"; }

const KernelTable& ActiveTable() { return TableOf(ActiveCpuVariant()); }

}  // namespace thresher::kernels
