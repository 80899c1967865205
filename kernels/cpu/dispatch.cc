#include "kernels/cpu/dispatch.h"

#include <atomic>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/native_check.h"
#include "kernels/cpu/require.h"

namespace thresher::kernels {
namespace {

const KernelTable& TableOf(CpuVariant variant) {
#if defined(THRESHER_KERNELS_X86)
  switch (variant) {
    case CpuVariant::kAmx:
      return AmxTable();
    case CpuVariant::kAvx512Bf16:
      return Avx512Bf16Table();
    case CpuVariant::kAvx512:
      return Avx512Table();
    case CpuVariant::kAvx2:
      return Avx2Table();
    case CpuVariant::kPortable:
      break;
  }
#endif
  return PortableTable();
}

#if defined(THRESHER_KERNELS_X86)
bool NativeDotWorks() {
  static const bool works =
      SameProducts(Avx512Bf16Table().gemm_bf16_dot, Avx512Table().gemm_bf16_dot);
  return works;
}

bool NativeAmxWorks() {
  static const bool works = SameProducts(AmxTable().gemm_bf16_amx, Avx512Table().gemm_bf16_amx);
  return works;
}
#endif

// Chosen at the first use and thereafter only by SetCpuVariant.
std::atomic<CpuVariant>& Active() {
  static std::atomic<CpuVariant> active{BestCpuVariant()};
  return active;
}

std::atomic<KernelSet> active_set{KernelSet::kFp32};
std::atomic<const KernelTable*> planted{nullptr};

}  // namespace

bool CpuVariantAvailable(CpuVariant variant) {
  switch (variant) {
    case CpuVariant::kPortable:
      return true;
#if defined(THRESHER_KERNELS_X86)
    case CpuVariant::kAvx2:
      return CpuHasAvx2();
    case CpuVariant::kAvx512:
      return CpuHasAvx512();
    case CpuVariant::kAvx512Bf16:
      return CpuHasAvx512Bf16() && NativeDotWorks();
    case CpuVariant::kAmx:
      return CpuHasAvx512Bf16() && CpuHasAmxBf16() && NativeDotWorks() && NativeAmxWorks();
#else
    default:
      break;
#endif
  }
  return false;
}

CpuVariant BestCpuVariant() {
  CpuVariant best = CpuVariant::kPortable;
  for (CpuVariant variant : kCpuVariants) {
    if (CpuVariantAvailable(variant)) best = variant;
  }
  return best;
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
    case CpuVariant::kAvx512Bf16:
      return "avx512_bf16";
    case CpuVariant::kAmx:
      return "amx";
  }
  return "unknown";
}

void SetKernelSet(KernelSet set) { active_set.store(set, std::memory_order_relaxed); }

KernelSet ActiveKernelSet() { return active_set.load(std::memory_order_relaxed); }

bool KernelSetNative(KernelSet set) {
  switch (set) {
    case KernelSet::kFp32:
      return true;
    case KernelSet::kBf16Dot:
      return ActiveCpuVariant() >= CpuVariant::kAvx512Bf16;
    case KernelSet::kBf16Amx:
      return ActiveCpuVariant() >= CpuVariant::kAmx;
  }
  return false;
}

const char* KernelSetName(KernelSet set) {
  switch (set) {
    case KernelSet::kFp32:
      return "cpu-fp32-v1";
    case KernelSet::kBf16Dot:
      return "cpu-bf16dot-v1";
    case KernelSet::kBf16Amx:
      return "cpu-bf16amx-v1";
  }
  return "unknown";
}

const KernelTable& ActiveTable() {
  const KernelTable* table = planted.load(std::memory_order_relaxed);
  return table != nullptr ? *table : TableOf(ActiveCpuVariant());
}

void PlantTable(const KernelTable* table) { planted.store(table, std::memory_order_relaxed); }

}  // namespace thresher::kernels
