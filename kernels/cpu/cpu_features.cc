#include "kernels/cpu/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace thresher::kernels {
namespace {

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero if the CPU does not have the leaf.
Leaf Cpuid(unsigned leaf, unsigned subleaf) {
  Leaf out;
  if (!__get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx)) return {};
  return out;
}

constexpr bool Bit(unsigned word, int bit) { return (word >> bit & 1) != 0; }

// Register state that the operating system saves.
unsigned SavedState() {
  if (!Bit(Cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool SystemAllowsTiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool CpuHasAvx2() {
  const unsigned kYmm = 0x6;
  const Leaf basic = Cpuid(1, 0);
  return (SavedState() & kYmm) == kYmm && Bit(basic.ecx, 12) && Bit(basic.ecx, 29) &&
         Bit(Cpuid(7, 0).ebx, 5);
}

bool CpuHasAvx512() {
  const unsigned kZmm = 0xe6;
  const unsigned extended = Cpuid(7, 0).ebx;
  return CpuHasAvx2() && (SavedState() & kZmm) == kZmm && Bit(extended, 16) && Bit(extended, 17) &&
         Bit(extended, 30) && Bit(extended, 31);
}

bool CpuHasAvx512Bf16() { return CpuHasAvx512() && Bit(Cpuid(7, 1).eax, 5); }

bool CpuHasAmxBf16() {
  const unsigned kTiles = 0x60000;
  const unsigned features = Cpuid(7, 0).edx;
  if (!Bit(features, 22) || !Bit(features, 24) || (SavedState() & kTiles) != kTiles) return false;
  static const bool allowed = SystemAllowsTiles();
  return allowed;
}

}  // namespace thresher::kernels
#endif
